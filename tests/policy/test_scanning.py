"""Sequences in chunks: whatever the chunks and whoever shares them, a row gets what the whole sequence gives alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.policy.batch import Batch, Lane
from sluice.policy.batching import BatchingOptions
from sluice.policy.buckets import bucket_for
from sluice.policy.contract_document import ContractError, parse_contract
from sluice.policy.cost import RunCost
from sluice.policy.errors import BackendError, EmptyInput, SequenceTooLong, ShapeMismatch
from sluice.policy.scanning import ChunkLength, Part, scanned
from sluice.policy.scheduler import Cancelled, Scheduler, feeds
from sluice.policy.sequences import Grouped
from sluice.policy.sessions import SessionOptions

from .puppet import FAR

LIMIT = 40
PAD = -3.0
_BATCH, _FEATURE = {"name": "batch"}, {"name": "feature", "size": 2}
_TIME, _RAGGED = {"name": "time"}, {"name": "time", "ragged": True, "least": 0}


def document() -> dict[str, Any]:
    """A model that hashes what it has seen. `scale` and its double belong to the row: a scan has them at each step."""

    def tensor(*axes: dict[str, Any], dtype: str = "float64", **more: Any) -> dict[str, Any]:
        return {"dtype": dtype, "axes": [dict(axis) for axis in (_BATCH, *axes)], **more}

    hash_ = {
        "name": "h", "input": "h_in", "output": "h_out", "dtype": "float64", "shape": [2], "initial": [1.0, 2.0],
    }  # fmt: skip
    return {
        "schema": 1,
        "signatures": {
            "scan": {
                "kind": "scan",
                "inputs": {"x": tensor(_TIME, _FEATURE), "scale": tensor(_TIME)},
                "outputs": {"y": tensor(_TIME, _FEATURE), "last": tensor(_FEATURE), "double": tensor(_TIME)},
                "states": [hash_],
                "lengths": "lengths",
            },
            "serving_default": {
                "kind": "sequences",
                "calls": "sequences",
                "inputs": {"x": tensor(_RAGGED, _FEATURE, pad=PAD), "scale": tensor()},
                "outputs": {"y": tensor(_TIME, _FEATURE), "last": tensor(_FEATURE), "double": tensor()},
                "lengths": {"time": "lengths"},
                "scan": {"signature": "scan"},
            },
        },
    }


WHOLE = parse_contract(document()).signatures["serving_default"]
LANE = Lane("m", 1, WHOLE.name)
Row = dict[str, np.ndarray]


def row_of(length: int, seed: int = 0) -> Row:
    dice = np.random.default_rng((length, seed))
    return {"x": dice.integers(0, 99, (length, 2)).astype(float), "scale": np.array(float(dice.integers(1, 9)))}


def alone(row: Row) -> Row:
    """What the model answers to a whole row, step by step."""
    h, ys = np.array([1.0, 2.0]), []
    for x in row["x"]:
        h = (h * 31 + x * row["scale"] + 7) % 65537
        ys.append(h)
    return {"y": np.array(ys).reshape(-1, 2), "last": h, "double": row["scale"] * 2}


def scan(inputs: Row) -> Row:
    """One chunk of a padded batch; what stands behind a row's end is garbage in the answer."""
    size, time = inputs["x"].shape[:2]
    h, ends = inputs["h_in"].copy(), inputs["lengths"]
    y, double = np.full((size, time, 2), np.nan), np.full((size, time), np.nan)
    for row in range(size):
        assert (inputs["x"][row, ends[row] :] == PAD).all()
        for t in range(ends[row]):
            h[row] = (h[row] * 31 + inputs["x"][row, t] * inputs["scale"][row, t] + 7) % 65537
            y[row, t], double[row, t] = h[row], inputs["scale"][row, t] * 2
    return {"y": y, "last": h, "double": double, "h_out": h.copy()}


def bounds_for(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(bucket_for(max(length, 1), (LIMIT,)) for length in lengths)


def request(rows: list[Row], chunk: int, outputs: tuple[str, ...] = (), **more: Any) -> Grouped:
    columns = {name: [row[name] for row in rows] for name in WHOLE.inputs}
    return scanned(LANE._replace(outputs=outputs), WHOLE, columns, bounds_for, chunk, FAR, **more)


def scheduler(largest: int = 4) -> Scheduler:
    return Scheduler(BatchingOptions(tuple(range(1, largest + 1)), in_flight=2), SessionOptions())


def run_all(mine: Scheduler, now: float = 1.0) -> list[Batch]:
    ran = []
    while (batch := mine.take(now)) is not None:
        ran.append(batch)
        answer = scan(feeds(batch))
        asked = batch.lane.outputs or tuple(answer)
        now += 0.01
        mine.finished(batch, {name: answer[name] for name in asked}, now)
    return ran


def check(rows: list[Row], found: Grouped) -> None:
    joined = found.joined([ticket.outcome for ticket in found.tickets])
    for number, row in enumerate(rows):
        for name, expected in alone(row).items():
            if name in joined:
                np.testing.assert_array_equal(joined[name][number], expected)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, LIMIT), min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(1, 24),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_a_row_gets_what_it_gets_whole_and_alone(requests, chunk, largest, chance):
    mine, now = scheduler(largest), 1.0
    asked = [[row_of(length, seed) for length in lengths] for seed, lengths in enumerate(requests)]
    found = [request(rows, chunk) for rows in asked]
    waiting = [ticket for each in found for ticket in each.tickets]
    chance.shuffle(waiting)
    running: list[Batch] = []
    while waiting or running or mine.busy:
        while waiting and chance.random() < 0.6:
            mine.offer(waiting.pop(), now)
        while (batch := mine.take(now)) is not None:
            running.append(batch)
        now += 0.01
        if running:
            batch = running.pop(chance.randrange(len(running)))
            mine.finished(batch, scan(feeds(batch)), now)
    for rows, each in zip(asked, found, strict=True):
        check(rows, each)


def test_long_rows_leave_room_for_short_ones_at_each_chunks_end():
    mine = scheduler()
    long = request([row_of(32)], 8)
    mine.offer(long.tickets[0], 1.0)
    first = mine.take(1.0)
    short = request([row_of(7)], 8)
    mine.offer(short.tickets[0], 1.0)
    mine.finished(first, scan(feeds(first)), 1.1)
    second = mine.take(1.1)
    assert [ticket.elements for ticket in second.tickets] == [7, 8]
    mine.finished(second, scan(feeds(second)), 1.2)
    run_all(mine, 1.2)
    check([row_of(32)], long)
    check([row_of(7)], short)


@pytest.mark.parametrize(
    ("length", "chunk", "bounds"),
    [(8, 8, [8]), (20, 8, [8, 8, 4]), (21, 8, [8, 8, 6]), (1, 8, [2]), (0, 8, [2]), (5, 1, [1] * 5), (3, 2, [2, 1])],
)
def test_the_last_chunk_is_padded_to_a_quarter_of_a_chunk(length, chunk, bounds):
    mine, row = scheduler(), row_of(length)
    found = request([row], chunk)
    mine.offer(found.tickets[0], 1.0)
    ran = run_all(mine)
    assert [batch.lane.bounds for batch in ran] == [(bound,) for bound in bounds]
    assert sum(batch.real_elements for batch in ran) == length
    if length:
        check([row], found)
    else:
        assert found.tickets[0].outcome["y"].shape == (1, 0, 2)


def test_only_the_outputs_that_are_asked_for_come_and_states_besides():
    mine = scheduler()
    found = request([row_of(20), row_of(3)], 8, ("last",))
    for ticket in found.tickets:
        mine.offer(ticket, 1.0)
    assert {batch.lane.outputs for batch in run_all(mine)} == {("last", "h_out")}
    assert found.joined([ticket.outcome for ticket in found.tickets]).keys() == {"last"}
    check([row_of(20), row_of(3)], found)


def test_parts_are_told_as_they_come_and_make_the_answer():
    mine, parts, rows = scheduler(), list[Part](), [row_of(20), row_of(5)]
    found = request(rows, 8, tell=parts.append)
    for ticket in found.tickets:
        mine.offer(ticket, 1.0)
    run_all(mine)
    assert [(part.start, sorted(part.outputs)) for part in parts if part.row == 0] == [
        (0, ["y"]), (8, ["y"]), (16, ["double", "last", "y"]),
    ]  # fmt: skip
    for number, row in enumerate(rows):
        own = [part.outputs for part in parts if part.row == number]
        np.testing.assert_array_equal(np.concatenate([part["y"] for part in own]), alone(row)["y"])
        np.testing.assert_array_equal(own[-1]["last"], alone(row)["last"])
        assert own[-1]["double"] == alone(row)["double"]


def test_rows_that_are_too_long_or_no_rows_are_refused_before_anything_runs():
    with pytest.raises(SequenceTooLong, match="40 long; 41 came"):
        request([row_of(3), row_of(41)], 8)
    with pytest.raises(EmptyInput):
        request([], 8)
    with pytest.raises(ShapeMismatch, match="Row 1"):
        request([row_of(3), {**row_of(3), "scale": np.zeros(2)}], 8)


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ({"h_out": None}, "'h_out'"),
        ({"h_out": np.zeros((1, 3))}, r"\[2\]; float64 \[3\] came"),
        ({"h_out": np.zeros((1, 2), np.float32)}, "float32"),
        ({"y": np.zeros((1, 4, 2))}, r"'y' of a chunk of 8 time steps .*; \[1, 4, 2\] came"),
        ({"y": np.zeros(1)}, "'y'"),
        ({"y": np.zeros((1, 8, 3))}, r"feature=2.*\[1, 8, 3\] came"),
        ({"y": None}, "'y'.*none came"),
        ({"last": None}, "'last'.*none came"),
    ],
)
def test_what_is_not_as_the_contract_says_fails_the_row(spoiled, said):
    mine = scheduler()
    found = request([row_of(20)], 8)
    mine.offer(found.tickets[0], 1.0)
    batch = mine.take(1.0)
    answer = scan(feeds(batch)) | spoiled
    mine.finished(batch, {name: array for name, array in answer.items() if array is not None}, 1.1)
    outcome = found.tickets[0].outcome
    assert isinstance(outcome, BackendError)
    with pytest.raises(BackendError, match=said):
        raise outcome
    assert not mine.busy


def test_a_chunk_that_gives_nothing_yet_is_no_part():
    mine, parts = scheduler(), list[Part]()
    found = request([row_of(20)], 8, ("last",), tell=parts.append)
    mine.offer(found.tickets[0], 1.0)
    run_all(mine)
    assert [(part.start, list(part.outputs)) for part in parts] == [(16, ["last"])]


def test_what_is_kept_of_a_batch_is_the_rows_own():
    mine, parts = scheduler(), list[Part]()
    found = request([row_of(16)] * 4, 8, tell=parts.append)
    whole = request([row_of(16, 1)], 8)
    for ticket in (*found.tickets[:3], *whole.tickets):
        mine.offer(ticket, 1.0)
    run_all(mine)
    assert all(part.outputs["y"].base.nbytes == part.outputs["y"].nbytes for part in parts)
    assert whole.tickets[0].outcome["y"].base is None
    assert found.tickets[0].outcome == {}


def test_a_row_that_is_cancelled_between_chunks_runs_no_more():
    mine = scheduler()
    found = request([row_of(32), row_of(32, 1)], 8)
    for ticket in found.tickets:
        mine.offer(ticket, 1.0)
    batch = mine.take(1.0)
    mine.finished(batch, scan(feeds(batch)), 1.1)
    mine.cancel(found.tickets[0], 1.1)
    assert [batch.rows for batch in run_all(mine, 1.1)] == [1, 1, 1]
    assert isinstance(found.tickets[0].outcome, Cancelled)
    np.testing.assert_array_equal(found.tickets[1].outcome["y"][0], alone(row_of(32, 1))["y"])


# How long chunks are


def cost_of(fixed_s: float, element_s: float, rows: int) -> RunCost:
    """What runs of `rows` rows teach."""
    cost = RunCost()
    for bound in (8, 16, 32, 64) * 16:
        cost.observe(rows, bound, fixed_s + element_s * rows * bound, rows)
    return cost


@pytest.mark.parametrize(
    ("fixed_s", "element_s", "rows", "longest", "chunk"),
    [
        (1e-3, 2e-5, 16, 200, 32),  # a tenth of a run of 32 steps is 1.02 ms
        (1e-3, 2e-5, 32, 200, 16),  # more rows, shorter chunks
        (1e-3, 2e-5, 16, 64, 32),
        (1e-3, 2e-5, 16, 63, 0),  # not two chunks
        (1e-6, 2e-5, 16, 200, 8),  # never less
        (1e-1, 2e-5, 16, 2000, 0),
        (1e-3, 0.0, 16, 2000, 0),  # longer runs cost nothing
        (1e-3, 2e-5, 16, 0, 0),
    ],
)
def test_chunks_are_so_long_that_what_each_costs_is_a_tenth(fixed_s, element_s, rows, longest, chunk):
    assert ChunkLength().of(RunCost(), cost_of(fixed_s, element_s, rows), lambda: longest) == chunk


def test_what_chunks_cost_is_learned_from_their_runs():
    mine = scheduler()
    assert not mine.cost("m", 1, "scan").known
    for length in (2, 4, 8) * 32:
        mine.offer(request([row_of(length)], 8).tickets[0], 1.0)
        batch = mine.take(1.0)
        mine.finished(batch, scan(feeds(batch)), 1.0 + 1e-3 + 1e-4 * batch.elements)
    cost = mine.cost("m", 1, "scan")
    assert cost.known
    assert cost.fixed_s == pytest.approx(1e-3, rel=0.1)
    assert not mine.cost("m", 2, "scan").known


def test_without_costs_sequences_run_whole_and_what_is_given_stays():
    assert ChunkLength().of(RunCost(), RunCost(), lambda: 1000) == 0
    assert ChunkLength(12).of(RunCost(), cost_of(1e-1, 2e-5, 16), lambda: 5) == 12
    assert ChunkLength(0).of(RunCost(), cost_of(1e-6, 2e-5, 16), lambda: 5000) == 0


def test_the_length_stays_until_what_is_right_is_far_from_it():
    chunks, cost = ChunkLength(), cost_of(1e-3, 2e-5, 16)  # 31.25 steps would be right
    assert chunks.of(cost, RunCost(), lambda: 2000) == 32

    def costs(fixed_s: float) -> int:
        for bound in (8, 16, 32, 64) * 16:
            cost.observe(16, bound, fixed_s + 2e-5 * 16 * bound, 16)
        return chunks.of(cost, RunCost(), lambda: 2000)

    assert costs(0.4e-3) == 32
    assert costs(0.2e-3) == 8
    assert costs(0.25e-3) == 8
    assert costs(0.3e-3) == 16


def test_who_went_back_to_whole_sequences_runs_chunks_again_when_it_is_worth_it():
    chunks, in_chunks, whole = ChunkLength(), cost_of(1e-3, 2e-5, 16), RunCost()
    assert chunks.of(in_chunks, whole, lambda: 2000) == 32
    for bound in (8, 16) * 32:
        in_chunks.observe(16, bound, 1e-3 + 2e-5 * 16 * bound, 16)
    assert chunks.of(in_chunks, whole, lambda: 20) == 0
    for bound in (200, 400) * 32:
        whole.observe(16, bound, 1e-3 + 2e-5 * 16 * bound, 16)
    assert chunks.of(in_chunks, whole, lambda: 2000) == 32


# What a contract may say of it


def spoiled(change: Any) -> None:
    contract = document()
    change(contract["signatures"])
    parse_contract(contract)


def test_a_contract_says_how_sequences_are_scanned():
    assert WHOLE.scanning is not None
    assert (WHOLE.scanning.signature.name, WHOLE.scanning.chunk) == ("scan", None)
    contract = document()
    contract["signatures"]["serving_default"]["scan"]["chunk"] = 16
    assert parse_contract(contract).signatures["serving_default"].scanning.chunk == 16


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda all_: all_["serving_default"].update(scan="scan"), "expected an object"),
        (lambda all_: all_["serving_default"].update(scan={}), "expected a name"),
        (lambda all_: all_["serving_default"]["scan"].update(signature="serving_default"), "kind scan"),
        (lambda all_: all_["serving_default"]["scan"].update(chunk=-1), "whole number"),
        (lambda all_: all_["scan"]["inputs"].pop("scale"), "the inputs of scan"),
        (lambda all_: all_["scan"]["outputs"]["last"].update(dtype="float32"), "the outputs of scan"),
        (lambda all_: all_["serving_default"]["scan"].update(signature="nothing"), r"scan\.signature.*kind scan"),
        (lambda all_: all_["scan"]["inputs"]["scale"]["axes"].pop(), "time axis of any size; 'scale'"),
        (lambda all_: all_["scan"]["inputs"]["x"]["axes"][1].update(size=9), "time axis of any size; 'x'"),
        (lambda all_: all_["scan"]["outputs"]["y"]["axes"].pop(1), "answers 'y' at each time step"),
        (lambda all_: all_["scan"].update(lengths="x"), "names of their own.*'x'"),
        (lambda all_: all_["scan"]["states"][0].update(input="x"), "names of their own.*'x'"),
        (lambda all_: all_["scan"]["states"][0].update(initial=[1.0, 2.0, 3.0]), r"initial.*shape \[2\]"),
        (lambda all_: all_["scan"]["states"][0].update(initial="none"), "initial: expected a number"),
        (lambda all_: _with_another_axis(all_["serving_default"]), "one ragged axis is 'time'"),
    ],
)
def test_what_cannot_be_scanned_is_refused_by_name(change, said):
    with pytest.raises(ContractError, match=said):
        spoiled(change)


def _with_another_axis(whole: dict[str, Any]) -> None:
    whole["inputs"]["x"]["axes"][1]["name"] = "moment"
    whole["lengths"] = {"moment": "lengths"}
