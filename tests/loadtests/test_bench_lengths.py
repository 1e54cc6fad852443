"""Mixes of lengths, the offline ideal, its open loop, and the bars that compare ways to batch."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import numpy as np
import pytest

from loadtests.bench.loads import generate as generate_load
from loadtests.bench.loads import poisson as poisson_load
from loadtests.bench.report.bars import bars
from loadtests.bench.report.plots import draw
from loadtests.bench.report.results import Outcome, Spread
from loadtests.bench.servers import offline
from loadtests.bench.servers.arrival import Batcher, Connection
from loadtests.bench.workloads import generation, lengths
from loadtests.bench.workloads.lengths import BIMODAL, LOG_NORMAL, LONGEST, MIXES, POOL, lengths_of
from loadtests.bench.workloads.sequences import http_requests, predict_request, sequences_of, write_requests
from loadtests.bench.workloads.steps import FEATURES, INPUT, OUTPUT
from loadtests.open_loop.schedule import arrivals
from sluice.policy.batching import BatchingOptions
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor, write_tensor


def outcome(name: str, *rates: float, **figures: float) -> Outcome:
    return Outcome(name, name.partition("-")[0], name, [[{"steps_per_s": rate, **figures}] for rate in rates])


def test_log_normal_lengths_have_their_median_and_their_99th_percentile() -> None:
    drawn = lengths.log_normal(np.random.default_rng(0), 200_000, 20.0, 200.0)
    assert np.percentile(drawn, (50, 99)) == pytest.approx([20, 200], rel=0.03)


def test_bimodal_lengths_are_half_about_10_and_half_about_150_with_a_deviation_of_a_fifth() -> None:
    drawn = BIMODAL.draw(np.random.default_rng(0), 200_000)
    short, long = drawn[drawn < 30], drawn[drawn >= 30]
    assert len(short) / len(drawn) == pytest.approx(0.5, abs=0.01)
    assert (short.mean(), short.std()) == (pytest.approx(10, rel=0.02), pytest.approx(2, rel=0.02))
    assert (long.mean(), long.std()) == (pytest.approx(150, rel=0.02), pytest.approx(30, rel=0.02))


def test_the_pool_that_is_sent_has_the_median_and_percentile_of_its_mix() -> None:
    found = lengths_of(LOG_NORMAL)
    assert len(found) == POOL
    assert np.median(found) == pytest.approx(20, abs=1)
    assert np.mean(np.array(found) >= LONGEST) == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.name)
def test_lengths_are_whole_within_bounds_and_the_same_in_every_run(mix) -> None:
    found = lengths_of(mix)
    assert min(found) >= 1
    assert max(found) <= LONGEST
    assert found == tuple(lengths.whole(mix.draw(np.random.default_rng(mix.seed), POOL), LONGEST).tolist())


def test_lengths_are_rounded_and_clipped() -> None:
    assert lengths.whole(np.array([-3.0, 0.2, 1.6, 9.4, 12.0]), 10).tolist() == [1, 1, 2, 9, 10]


def test_probes_stand_for_all_sequences() -> None:
    found = lengths_of(LOG_NORMAL)
    chosen = [found[place] for place in lengths.probes(found)]
    assert len(chosen) == lengths.PROBES
    assert chosen == sorted(chosen)
    assert np.mean(chosen) == pytest.approx(np.mean(found), rel=0.01)


def test_probes_are_the_middles_of_equal_shares() -> None:
    assert lengths.probes([50, 10, 40, 20, 30, 60], 3) == [3, 2, 5]


def test_padding_is_compared_with_the_best_bounds_of_the_whole_mix() -> None:
    # The best two bounds of 1, 1, 1, 9, 10 are 1 and 10: they pad the 9 by 1; 2 and 10 pad four rows, by 1 each.
    assert lengths.padding_over_optimum(4.0, [1, 1, 1, 9, 10], [1, 1, 1, 9, 10, LONGEST], 3) == 4.0


def test_the_shortest_quarter_ends_with_a_length() -> None:
    assert lengths.is_short([5, 1, 9, 2, 7, 8, 6, 3]).tolist() == [0, 1, 0, 1, 0, 0, 0, 0]
    assert lengths.is_short([1, 1, 1, 2]).tolist() == [1, 1, 1, 0]


def test_the_optimum_of_eight_buckets_pads_less_than_a_fifth_of_the_elements() -> None:
    found = lengths_of(LOG_NORMAL)
    assert lengths.optimum_share(found, 8) == pytest.approx(0.18, abs=0.01)
    assert lengths.optimum_share([1, 1, 200], 1) == pytest.approx(398 / 600)


def test_the_offline_ideal_sorts_each_window_and_cuts_it_into_full_batches() -> None:
    given = [5, 1, 9, 2, 7, 7, 1, 3, 4]
    assert list(lengths.windows(given, 4, 2)) == [[[1, 3], [0, 2]], [[6, 7], [4, 5]]]
    batches = [batch for window in lengths.windows(given, 4, 2) for batch in window]
    assert [lengths.elements(given, batch) for batch in batches] == [4, 18, 6, 14]


def test_sorting_within_a_window_saves_elements_only_where_it_is_several_batches() -> None:
    given = lengths_of(LOG_NORMAL)
    by_size = {
        size: sum(lengths.elements(given, batch) for window in lengths.windows(given, 128, size) for batch in window)
        for size in offline.SIZES
    }
    assert list(by_size.values()) == sorted(by_size.values())
    assert by_size[128] == sum(128 * max(given[start : start + 128]) for start in range(0, POOL, 128))
    assert by_size[8] < 1.2 * sum(given)


def test_the_offline_ideals_messages_hold_every_sequence_once() -> None:
    calls = offline.calls_of(LOG_NORMAL, 32)
    requests = [tfs.PredictRequest.FromString(message) for window in calls for message in window]
    sent = Counter(length for request in requests for length in read_tensor(request.inputs["lengths"]).tolist())
    assert sent == Counter(lengths_of(LOG_NORMAL))


def test_a_batch_is_padded_to_its_longest_sequence_with_zeros() -> None:
    rows = [np.ones((2, FEATURES), np.float32), np.ones((5, FEATURES), np.float32)]
    request = tfs.PredictRequest.FromString(predict_request(rows))
    block = read_tensor(request.inputs[INPUT])
    assert block.shape == (2, 5, FEATURES)
    assert block.sum(axis=(1, 2)).tolist() == [2 * FEATURES, 5 * FEATURES]
    assert read_tensor(request.inputs["lengths"]).tolist() == [2, 5]


def test_requests_say_how_large_they_are_and_hold_their_sequence(tmp_path) -> None:
    for padded in (False, True):
        request = http_requests(BIMODAL, padded=padded)[3]
        head, _, body = request.partition(b"\r\n\r\n")
        assert int(head.rpartition(b"content-length: ")[2]) == len(body)
        assert sequences_of(BIMODAL)[3].tobytes() in body
        write_requests([request, b"next"], tmp_path / "requests")
        assert (tmp_path / "requests").read_bytes().endswith(request[-9:] + b"\0\0\0\4next")


class Ends:
    """A model server whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, asyncio.Future[None]]] = []

    async def __call__(self, message: bytes) -> bytes:
        sizes = read_tensor(tfs.PredictRequest.FromString(message).inputs["lengths"])
        gate = asyncio.get_running_loop().create_future()
        self.calls.append((sizes, gate))
        await gate
        response = tfs.PredictResponse()
        write_tensor(response.outputs[OUTPUT], np.repeat(sizes[:, np.newaxis], FEATURES, 1).astype(np.float32))
        return response.SerializeToString()


async def test_batches_in_arrival_order_grow_while_as_many_run_as_may() -> None:
    ends, told = Ends(), []
    batcher = Batcher(ends, BatchingOptions(allowed_batch_sizes=(1, 3), in_flight=1))
    for length in (4, 2):
        batcher.offer(np.zeros((length, FEATURES), np.float32), told.append)
    await turns()
    for length in (9, 1, 8, 3):
        batcher.offer(np.zeros((length, FEATURES), np.float32), told.append)
    for calls in range(1, 4):
        await turns()
        assert len(ends.calls) == calls
        ends.calls[-1][1].set_result(None)
    await turns()
    assert [sizes.tolist() for sizes, _ in ends.calls] == [[4, 2], [9, 1, 8], [3]]
    assert [np.frombuffer(output, np.float32)[0] for output in told] == [4, 2, 9, 1, 8, 3]


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self.closing


async def test_the_server_in_arrival_order_reads_our_requests_in_pieces_and_answers_as_the_gateway_does() -> None:
    ends, transport = Ends(), Written()
    connection = Connection(Batcher(ends, BatchingOptions()))
    connection.connection_made(transport)
    for place in range(2):
        request = http_requests(LOG_NORMAL, padded=False)[place]
        connection.data_received(request[:100])
        connection.data_received(request[100:])
        await turns()
        assert ends.calls[-1][0].tolist() == [lengths_of(LOG_NORMAL)[place]]
        transport.closing = place == 1  # the second client does not wait for its answer
        ends.calls[-1][1].set_result(None)
        await turns()
    head, _, body = transport.data.partition(b"\r\n\r\n")
    assert int(head.rpartition(b"content-length: ")[2]) == len(body)
    assert np.frombuffer(body[-4 * FEATURES :], np.float32).tolist() == [lengths_of(LOG_NORMAL)[0]] * FEATURES


async def turns() -> None:
    """Let the loop run all that is ready, and what that makes ready."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def http_server(answer) -> AsyncIterator[str]:
    """Answers each request on a connection with what `answer(head, body)` gives."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
                writer.write(await answer(head, body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_an_open_loop_sends_every_request_of_its_schedule_and_counts_from_when_it_was_due() -> None:
    seen = []

    async def slowly(head: bytes, body: bytes) -> bytes:
        seen.append(body)
        await asyncio.sleep(0.02)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    requests = [b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n%d" % digit for digit in range(3)]
    async with http_server(slowly) as address:
        loads = await poisson_load.run(address, requests, np.ones(3, bool), [100.0, 200.0], 0.2)
    counts = [len(arrivals(rate, 0.2, poisson_load._SEED + place)) for place, rate in enumerate((100, 200))]
    assert [load.answers for load in loads] == counts
    assert seen == [b"%d" % (place % 3) for place in range(sum(counts))]
    assert loads[0].p50_ms >= 20


async def test_the_shortest_quarter_is_timed_by_itself_in_every_load() -> None:
    async def by_kind(head: bytes, body: bytes) -> bytes:
        if body == b"L":
            await asyncio.sleep(0.3)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    requests = [b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n%s" % kind for kind in (b"S", b"L", b"L")]
    short = np.array([True, False, False])
    async with http_server(by_kind) as address:
        for load in await poisson_load.run(address, requests, short, [100.0, 160.0], 0.2):
            assert load.p99_ms >= 300
            assert load.short_p99_ms < load.p50_ms


async def test_an_open_loop_without_requests_is_none() -> None:
    with pytest.raises(poisson_load.Refused, match="nothing to send"):
        await poisson_load.run("127.0.0.1:9", [b""], np.ones(1, bool), [1e-9], 0.1)


async def test_a_refused_request_ends_the_open_loop_with_its_reason() -> None:
    async def refuse(head: bytes, body: bytes) -> bytes:
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nfull"

    async with http_server(refuse) as address:
        with pytest.raises(poisson_load.Refused, match=r"429.*full"):
            request = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
            await poisson_load.run(address, [request], np.ones(1, bool), [500.0], 0.1)


class Generator:
    """Answers as many tokens as are asked for; how many requests were there at a time is noted."""

    def __init__(self) -> None:
        self.at_once: list[int] = []
        self._now = 0

    async def __call__(self, head: bytes, body: bytes) -> bytes:
        self._now += 1
        await asyncio.sleep(0.001 if b'"max_steps":1,' in body else 0.005)
        self.at_once.append(self._now)
        self._now -= 1
        if b'"stream":true' not in body:
            return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        events = b"event: token\ndata: {}\n\nevent: done\ndata: {}\n\n"
        start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        return start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)


@pytest.mark.parametrize("mode", generate_load.MODES)
async def test_clients_generate_in_every_mode(mode: str) -> None:
    generator = Generator()
    async with http_server(generator) as address:
        load = await generate_load.run(address, mode, 4, 0.1)
    assert load.answers > 0
    assert 0 < load.p50_ms <= load.p99_ms
    assert max(generator.at_once) == 4
    if mode == "static":  # each batch runs empty before the next begins: 4, 3, 2, 1
        assert generator.at_once[: len(generator.at_once) // 4 * 4] == [4, 3, 2, 1] * (len(generator.at_once) // 4)


async def test_a_static_batchs_tokens_are_those_of_whole_batches() -> None:
    async with http_server(Generator()) as address:
        load = await generate_load.run(address, "static", 4, 0.05)
    asked = generation.steps()
    sums = np.cumsum([sum(asked[start : start + 4]) for start in range(0, len(asked), 4)])
    assert any(load.answers == later - earlier for earlier in [0, *sums] for later in sums)


async def test_a_stream_with_an_error_in_it_ends_the_load() -> None:
    async def fail(head: bytes, body: bytes) -> bytes:
        events = b'event: error\ndata: {"code":"unavailable"}\n\nevent: done\ndata: {}\n\n'
        start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        return start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)

    async with http_server(fail) as address:
        with pytest.raises(generate_load.Refused, match="unavailable"):
            await generate_load.run(address, "stream", 2, 0.1)


def test_requests_to_generate_ask_for_mixed_lengths_within_the_models_limit() -> None:
    assert np.median(generation.steps()) == pytest.approx(16, abs=1)
    assert (min(generation.steps()) >= 1, max(generation.steps())) == (True, generation.MAX_STEPS)
    assert {len(source) for source in generation.sources()} <= set(range(4, generation.SOURCE_LONGEST + 1))
    assert all(generation.END < token < generation.TOKENS for source in generation.sources() for token in source)


def of(*outcomes: Outcome) -> dict[str, Outcome]:
    return {each.name: each for each in outcomes}


def test_ways_to_batch_are_compared_round_by_round() -> None:
    found = bars(
        of(
            outcome("lengths-lognormal-longest", 100, 200),
            outcome("lengths-lognormal-arrival", 250, 400),
            outcome("lengths-lognormal-learned4", 360, 500, padding_over_optimum=1.02),
            outcome("lengths-lognormal-learned8", 320, 600, padding_over_optimum=1.06),
            outcome("lengths-lognormal-scanned", 330, 500, padding_share_over_optimum=0.9),
            outcome("lengths-lognormal-offline", 400, 800),
            outcome("lengths-bimodal-learned8", 10, open70_short_p99_ms=80.0),
            outcome("lengths-bimodal-scanned", 10, open70_short_p99_ms=20.0),
        )
    )
    reached = {bar.title: (bar.reached, bar.holds) for bar in found if bar.reached is not None}
    assert reached == {
        "lognormal: 8 learned buckets / padded to the longest": (Spread(pytest.approx(3.1), 3.0, 3.2), True),
        "lognormal: 8 learned buckets / arrival order": (Spread(pytest.approx(1.39), 1.28, 1.5), True),
        "lognormal: the best / the offline ideal": (Spread(pytest.approx(0.7875), 0.75, 0.825), False),
        "lognormal: padding of 4 learned buckets / optimum": (Spread(1.02, 1.02, 1.02), True),
        "lognormal: padding of 8 learned buckets / optimum": (Spread(1.06, 1.06, 1.06), False),
        "lognormal: share of padding in chunks / optimum of 8 buckets": (Spread(0.9, 0.9, 0.9), True),
        "bimodal: the shortest quarter's p99, chunks / 8 learned buckets": (Spread(0.25, 0.25, 0.25), True),
    }


def test_a_running_batch_is_compared_with_clients_that_wait_for_the_longest() -> None:
    found = bars(of(outcome("generation-running", 50, 90), outcome("generation-static", 20, 50)))
    [bar] = [bar for bar in found if bar.reached is not None]
    assert (bar.reached, bar.holds) == (Spread(pytest.approx(2.15), 1.8, 2.5), True)


def test_a_picture_is_drawn_of_each_mix_that_was_measured(tmp_path) -> None:
    open_loops = {
        f"open{share}_{figure}": 2.0 for share in (30, 50, 70, 90) for figure in ("per_s", "p50_ms", "p99_ms")
    }
    drawn = draw(of(outcome("lengths-bimodal-learned8", 10, **open_loops)), tmp_path)
    assert [file.name for file in drawn] == ["lengths-bimodal.png"]
