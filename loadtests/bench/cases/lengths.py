"""The cases of sequences that differ in length: each way to batch them, under the same two mixes of lengths.

Each case has a closed loop of 128 clients, whose throughput is the capacity of its way, and then open loops at shares
of that. In this group a step is a sequence.
"""

from collections.abc import Callable, Iterator
from functools import partial

from loadtests.bench.cases.case import Case, python_load, python_loads, watched
from loadtests.bench.loads import wrk
from loadtests.bench.loads.once import send_once
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import Gateway, Stage
from loadtests.bench.workloads.lengths import (
    LONGEST,
    MIXES,
    WINDOW,
    Mix,
    lengths_of,
    optimum_share,
    padding_over_optimum,
    probes,
)
from loadtests.bench.workloads.sequences import PADDED, RAGGED, SCAN, SEQUENCES, http_requests
from sluice.policy.scanning import DEFAULT_CHUNK

Way = Callable[[Stage, float, Mix], Sample]

SHARES = (30, 50, 70, 90)  # % of capacity
BUCKETS = (4, 8)
_BUCKETS = BUCKETS[-1]  # of the gateways that can run chunks
_LIMIT_S = 100.0  # of open loops, beside what they send
POLICIES = {
    "longest": "padded to 200 by the client",
    "arrival": "arrival order, padded to the batch's longest",
    **{f"learned{count}": f"{count} learned buckets" for count in BUCKETS},
    "scanned": f"chunks of {DEFAULT_CHUNK} time steps",
    "chosen": "8 buckets or chunks, as runs cost",
    "offline": "offline ideal: sorted, the model server alone",
}


def length_cases() -> Iterator[Case]:
    """Every way of every mix."""
    for mix in MIXES:
        ways: dict[str, Way] = {"longest": _longest, "arrival": _arrival}
        ways |= {f"learned{count}": partial(_learned, count) for count in BUCKETS}
        ways["scanned"] = partial(_in_chunks, "scanned", DEFAULT_CHUNK)
        ways["chosen"] = partial(_in_chunks, "chosen", None)
        ways["offline"] = _offline
        for name, way in ways.items():

            def measure(stage: Stage, seconds: float, way: Way = way, mix: Mix = mix) -> list[Sample]:
                return [way(stage, seconds, mix)]

            yield Case(case_name(mix, name), "lengths", f"{mix.title}: {POLICIES[name]}", measure)


def case_name(mix: Mix, policy: str) -> str:
    return f"lengths-{mix.name}-{policy}"


def _longest(stage: Stage, seconds: float, mix: Mix) -> Sample:
    gateway = stage.gateway("gateway")
    return _loaded(stage, gateway, PADDED, seconds, mix)


def _learned(buckets: int, stage: Stage, seconds: float, mix: Mix) -> Sample:
    gateway = _schooled(stage, mix, f"learned{buckets}", buckets, 0)
    before = _elements(gateway)
    found = _loaded(stage, gateway, RAGGED, seconds, mix)
    return {
        **found,
        "padding_share": _share(gateway, before),
        "padding_over_optimum": _padding_over_optimum(gateway, mix, buckets),
    }


def _in_chunks(name: str, chunk: int | None, stage: Stage, seconds: float, mix: Mix) -> Sample:
    """In chunks of so many time steps; None: as the gateway decides."""
    gateway = _schooled(stage, mix, name, _BUCKETS, chunk)
    before = _elements(gateway)
    found = _answered(gateway.address, seconds, mix)
    share = _share(gateway, before)
    return {
        **found,
        "padding_share": share,
        "padding_share_over_optimum": share / optimum_share(lengths_of(mix), _BUCKETS),
    }


def _schooled(stage: Stage, mix: Mix, name: str, buckets: int, chunk: int | None) -> Gateway:
    """A gateway of its own, which has seen this mix once and no other before it is measured."""
    settings = ["--buckets", str(buckets), "--sequence-limit", str(LONGEST)]
    settings += [] if chunk is None else ["--scan-chunks", f"{SEQUENCES}={chunk}"]
    gateway = stage.gateway(f"gateway-{mix.name}-{name}", *settings)
    if not any(gateway.batches(SEQUENCES, signature)[0] for signature in (RAGGED, SCAN)):
        send_once(gateway.address, iter(http_requests(mix, padded=False)))
    return gateway


def _padding_over_optimum(gateway: Gateway, mix: Mix, buckets: int) -> float:
    """What the bounds that were learned pad, over what the best ones would.

    Sequences that stand for the mix are sent one at a time, so that each is a batch by itself: what the gateway counts
    is then padding alone, without filler and without rows that ride in a longer bucket.
    """
    requests, lengths = http_requests(mix, padded=False), lengths_of(mix)
    chosen = probes(lengths)
    before = _elements(gateway)
    send_once(gateway.address, (requests[place] for place in chosen), 1)
    _, padding = _grown(gateway, before)
    return padding_over_optimum(padding, [lengths[place] for place in chosen], lengths, buckets)


def _share(gateway: Gateway, before: tuple[float, float]) -> float:
    """Of padding and filler in all elements that have run since."""
    real, padding = _grown(gateway, before)
    return padding / (real + padding)


def _grown(gateway: Gateway, before: tuple[float, float]) -> tuple[float, float]:
    real, padding = _elements(gateway)
    return real - before[0], padding - before[1]


def _elements(gateway: Gateway) -> tuple[float, float]:
    """Real ones and padding, of whole sequences and of chunks."""
    whole, chunks = gateway.elements(SEQUENCES, RAGGED), gateway.elements(SEQUENCES, SCAN)
    return whole[0] + chunks[0], whole[1] + chunks[1]


def _arrival(stage: Stage, seconds: float, mix: Mix) -> Sample:
    _, address = stage.arrival
    return _answered(address, seconds, mix)


def _answered(address: str, seconds: float, mix: Mix) -> Sample:
    """An address under the closed loop and the open ones, by its answers alone."""
    closed = wrk.call_many(address, http_requests(mix, padded=False), WINDOW, seconds).sample()
    return {**closed, **_open(address, mix, seconds, closed["steps_per_s"], padded=False)}


def _offline(stage: Stage, seconds: float, mix: Mix) -> Sample:
    """Its latencies are those of batches that nobody waits for: they are left out."""
    measured = python_load("servers.offline", seconds, stage.backend, mix.name, seconds)
    return {"steps_per_s": measured.sample()["steps_per_s"]}


def _loaded(stage: Stage, gateway: Gateway, signature: str, seconds: float, mix: Mix) -> Sample:
    """A gateway under the closed loop and the open ones."""
    padded = signature == PADDED
    requests = http_requests(mix, padded=padded)
    closed = watched(
        stage,
        gateway,
        (SEQUENCES, signature),
        lambda: wrk.call_many(gateway.address, requests, WINDOW, seconds),
    )
    return {**closed, **_open(gateway.address, mix, seconds, closed["steps_per_s"], padded=padded)}


def _open(address: str, mix: Mix, seconds: float, capacity: float, *, padded: bool) -> Sample:
    """Open loops at shares of the capacity, a quarter as long each as the closed one."""
    rates = [capacity * share / 100 for share in SHARES]
    args = (address, mix.name, int(padded), seconds / 4, *rates)
    found: dict[str, float] = {}
    for share, rate, load in zip(SHARES, rates, python_loads("loads.poisson", _LIMIT_S + seconds, *args), strict=True):
        found |= {f"open{share}_per_s": rate, f"open{share}_p50_ms": load.p50_ms, f"open{share}_p99_ms": load.p99_ms}
        found[f"open{share}_short_p99_ms"] = load.short_p99_ms or load.p99_ms
    return found
