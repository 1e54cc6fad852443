"""Sequences: rows of different lengths in, padded by bucket, cut to length again. The oracle is each row alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.policy.batch import Batch, Lane, Ticket, row_bytes
from sluice.policy.batching import BatchingOptions, Dispatcher
from sluice.policy.buckets import bucket_for
from sluice.policy.contract import Signature
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import (
    BackendError,
    BatchTooLarge,
    DtypeMismatch,
    EmptyInput,
    SequenceTooLong,
    ShapeMismatch,
)
from sluice.policy.sequences import Grouped, grouped, lane_of, rows_of, text_values
from tests.size import size

from .puppet import FAR

BOUNDS = {"source": (2, 4, 8), "target": (3, 8)}
_BATCH, _SOURCE = {"name": "batch"}, {"name": "source", "ragged": True}
_TARGET = {"name": "target", "ragged": True, "least": 0}


def tensor(*axes: dict[str, Any], dtype: str = "float64", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "axes": [dict(axis) for axis in axes], **more}


def document() -> dict[str, Any]:
    """Two ragged axes, one of them with lengths and one with a mask; an input that shares an axis, and one without."""
    return {
        "schema": 1,
        "signatures": {
            "serving_default": {
                "kind": "sequences",
                "calls": "sequences",
                "inputs": {
                    "x": tensor(_BATCH, _SOURCE, {"name": "feature", "size": 2}, pad=-9.0),
                    "weight": tensor(_BATCH, _SOURCE, pad=-9.0),
                    "y": tensor(_BATCH, _TARGET, dtype="int64", pad=7),
                    "scale": tensor(_BATCH),
                },
                "outputs": {
                    "total": tensor(_BATCH),
                    "running": tensor(_BATCH, {"name": "source"}, {"name": "feature", "size": 2}),
                    "cross": tensor(_BATCH, {"name": "target"}, {"name": "source"}),
                },
                "lengths": {"source": "length"},
                "masks": {"target": "mask"},
                "buckets": {axis: list(bounds) for axis, bounds in BOUNDS.items()},
            }
        },
    }


SEQUENCES = parse_contract(document()).signatures["serving_default"]
LANE = Lane("m", 1, SEQUENCES.name)
Row = dict[str, np.ndarray]


def alone(row: Row) -> Row:
    """What the model answers to one row, unpadded."""
    weighted = row["x"] * row["weight"][:, np.newaxis] * row["scale"]
    return {
        "total": weighted.sum() + row["y"].sum(),
        "running": np.cumsum(weighted, axis=0),
        "cross": np.outer(row["y"], row["weight"]),
    }


def model(inputs: Row) -> Row:
    """The same for a padded batch; what stands in the padding is never right, and is garbage in the answer."""
    answers = []
    size, source, target = len(inputs["x"]), inputs["x"].shape[1], inputs["y"].shape[1]
    assert inputs["mask"].shape == (size, target)
    for i in range(size):
        length, count = int(inputs["length"][i]), int(inputs["mask"][i].sum())
        assert inputs["mask"][i, :count].all()
        assert (inputs["x"][i, length:] == -9).all() and (inputs["weight"][i, length:] == -9).all()
        assert (inputs["y"][i, count:] == 7).all()
        own = alone(
            {
                "x": inputs["x"][i, :length], "weight": inputs["weight"][i, :length], "y": inputs["y"][i, :count],
                "scale": inputs["scale"][i],
            }
        )  # fmt: skip
        running, cross = np.full((source, 2), np.nan), np.full((target, source), np.nan)
        running[:length], cross[:count, :length] = own["running"], own["cross"]
        answers.append({"total": own["total"], "running": running, "cross": cross})
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def bounds_for(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(bucket_for(n, bounds) for n, bounds in zip(lengths, BOUNDS.values(), strict=True))


def row_of(source: int, target: int, seed: int = 0) -> Row:
    dice = np.random.default_rng((source, target, seed))
    return {
        "x": dice.normal(size=(source, 2)), "weight": dice.normal(size=source),
        "y": dice.integers(0, 9, target), "scale": dice.normal(),
    }  # fmt: skip


def columns(rows: list[Row]) -> dict[str, list[np.ndarray]]:
    return {name: [np.asarray(row[name]) for row in rows] for name in SEQUENCES.inputs}


def group(rows: list[Row], largest: int = 8) -> Grouped:
    return grouped(LANE, SEQUENCES, columns(rows), bounds_for, largest, FAR)


def run_all(dispatcher: Dispatcher, tickets: list[Ticket]) -> dict[Ticket, Row]:
    """Offer all, run every batch, and give each ticket its rows."""
    found: dict[Ticket, Row] = {}
    for ticket in tickets:
        dispatcher.offer(ticket, 1.0)
    now = 1.0
    while (batch := dispatcher.take(now)) is not None:
        outputs = model(batch.stacked())
        check_padding(batch)
        now += 0.01 + 1e-4 * batch.elements
        dispatcher.finished(batch, now, succeeded=True)
        for ticket, span in batch.spans():
            found[ticket] = {name: array[span] for name, array in outputs.items()}
    return found


def check_padding(batch: Batch) -> None:
    """A batch has the form of its bucket, whoever rides in it."""
    stacked = batch.stacked()
    assert {name: (array.dtype, array.shape[1:]) for name, array in stacked.items()} == {
        name: (dtype, shape) for name, dtype, shape in batch.lane.rows_like
    }
    assert {len(array) for array in stacked.values()} == {batch.size}
    assert batch.elements == batch.size * batch.lane.bounds[0] * batch.lane.bounds[1]


lengths = st.tuples(st.integers(1, 8), st.integers(0, 8))


@settings(max_examples=size(60, 2000), deadline=None)
@given(
    requests=st.lists(st.lists(lengths, min_size=1, max_size=5), min_size=1, max_size=12),
    sizes=st.sampled_from([(8,), (1, 2, 4, 8), (3, 8)]),
    in_flight=st.integers(1, 3),
)
def test_every_row_gets_what_it_would_have_got_alone_and_unpadded(
    requests: list[list[tuple[int, int]]], sizes: tuple[int, ...], in_flight: int
) -> None:
    rows = [[row_of(*each, seed=n) for n, each in enumerate(request)] for request in requests]
    parts = [group(each, sizes[-1]) for each in rows]
    dispatcher = Dispatcher(BatchingOptions(sizes, in_flight))
    answers = run_all(dispatcher, [ticket for part in parts for ticket in part.tickets])
    assert dispatcher.waiting_rows == 0
    for part, own in zip(parts, rows, strict=True):
        joined = part.joined([answers[ticket] for ticket in part.tickets])
        for i, row in enumerate(own):
            for name, expected in alone(row).items():
                np.testing.assert_array_equal(joined[name][i], expected)
        assert sum(ticket.elements for ticket in part.tickets) == sum(len(row["x"]) * len(row["y"]) for row in own)


def test_rows_of_a_request_are_tickets_by_bucket_of_no_more_rows_than_a_batch() -> None:
    found = group([row_of(1, 1), row_of(8, 8), row_of(2, 3), row_of(2, 0), row_of(1, 2)], largest=2)
    assert [(ticket.lane.bounds, ticket.rows) for ticket in found.tickets] == [((2, 3), 2), ((2, 3), 2), ((8, 8), 1)]
    assert found.rows == [[0, 2], [3, 4], [1]]


def test_answers_of_one_length_are_one_array_and_others_are_a_list() -> None:
    for rows, kind in (([row_of(2, 2), row_of(2, 2, 1)], np.ndarray), ([row_of(2, 2), row_of(1, 2)], list)):
        found = group(rows)
        joined = found.joined([model(Batch(t.lane, [t], t.rows, t.rows, 0.0).stacked()) for t in found.tickets])
        assert isinstance(joined["running"], kind)
        assert isinstance(joined["total"], np.ndarray)


def test_an_answer_that_is_shorter_than_its_row_is_the_model_servers_error() -> None:
    found = group([row_of(3, 1)])
    answer = {"total": np.zeros(1), "running": np.zeros((1, 2, 2)), "cross": np.zeros((1, 1, 3))}
    with pytest.raises(BackendError, match="'running' of a sequence of length 3 with shape \\[2, 2\\]"):
        found.joined([answer])
    with pytest.raises(BackendError, match="'running'"):
        found.joined([{**answer, "running": np.zeros(1)}])


def test_an_output_that_the_contract_does_not_know_is_passed_on_as_it_came() -> None:
    found = group([row_of(3, 1)])
    joined = found.joined([{"other": np.arange(3.0).reshape(1, 3)}])
    np.testing.assert_array_equal(joined["other"], [[0, 1, 2]])


def test_a_shorter_row_rides_in_the_place_of_filler() -> None:
    dispatcher = Dispatcher(BatchingOptions((4, 8)))
    long, short = group([row_of(8, 1)] * 2).tickets[0], group([row_of(1, 1)] * 2).tickets[0]
    others = [group([row_of(3, 1)] * 3).tickets[0], group([row_of(8, 8)]).tickets[0]]
    for ticket in (long, short, *others):
        dispatcher.offer(ticket, 1.0)
    batch = dispatcher.take(1.0)
    assert batch is not None
    assert (batch.tickets, batch.rows, batch.size, batch.lane) == ([long, short], 4, 4, long.lane)
    assert dispatcher.waiting_rows == 4  # three rows do not fit into what is left, and those of (8, 8) are longer


def test_the_bytes_of_a_row_are_those_that_it_has_when_it_is_padded() -> None:
    lane = lane_of(Lane("m", 1, "a"), SEQUENCES, (3, 5))
    columns = {name: np.zeros((1, *shape), dtype) for name, dtype, shape in lane.rows_like}
    assert row_bytes(lane) == sum(array.nbytes for array in columns.values()) > 0


def test_an_exact_run_says_nothing_of_how_many_rows_share_a_run() -> None:
    dispatcher = Dispatcher(BatchingOptions())
    for _ in range(20):
        dispatcher.offer(Ticket(Lane("m", 1, "a", bounds=(4,), exact=True), {"x": np.zeros((50, 4))}, 50, FAR), 1.0)
        dispatcher.finished(dispatcher.take(1.0), 2.0, succeeded=True)
    assert dispatcher.cost(1, "a").rows == 1.0


def test_a_whole_queue_rides_when_a_run_of_its_own_would_cost_more() -> None:
    dear, cheap = Dispatcher(BatchingOptions((1, 2, 8))), Dispatcher(BatchingOptions((1, 2, 8)))
    for dispatcher, fixed_s in ((dear, 5.0), (cheap, 0.0)):
        for rows in [1, 2, 8] * 16:
            [ticket] = group([row_of(8, 1)] * rows).tickets
            dispatcher.offer(ticket, 1.0)
            batch = dispatcher.take(1.0)
            assert batch is not None
            dispatcher.finished(batch, 1.0 + fixed_s + 1e-3 * batch.elements, succeeded=True)
        for rows in (group([row_of(8, 1)]), group([row_of(1, 1)] * 3)):
            dispatcher.offer(rows.tickets[0], 1.0)
    assert [batch.rows for batch in (dear.take(1.0), cheap.take(1.0)) if batch] == [4, 1]


def test_rows_that_must_run_alone_carry_nobody() -> None:
    dispatcher = Dispatcher(BatchingOptions((4,)))
    for ticket, alone_ in ((group([row_of(8, 1)]).tickets[0], 1), (group([row_of(1, 1)]).tickets[0], 0)):
        ticket.lane = ticket.lane._replace(alone=alone_)
        dispatcher.offer(ticket, 1.0)
    batch = dispatcher.take(1.0)
    assert batch is not None
    assert batch.rows == 1


def arrays(rows: list[Row]) -> Row:
    """Rows as who has only arrays sends them, padded with anything."""
    source, target = (max(len(row[name]) for row in rows) for name in ("x", "y"))
    sizes = {"x": (source, 2), "weight": (source,), "y": (target,), "scale": ()}
    found = {name: np.full((len(rows), *size), 5, SEQUENCES_DTYPES[name]) for name, size in sizes.items()}
    for i, row in enumerate(rows):
        for name, values in row.items():
            found[name][(i, *map(slice, np.shape(values)))] = values
    return found


SEQUENCES_DTYPES = {"x": "float64", "weight": "float64", "y": "int64", "scale": "float64"}


def test_arrays_are_cut_to_the_lengths_and_masks_beside_them() -> None:
    rows = [row_of(3, 2), row_of(1, 4), row_of(5, 1)]
    mask = np.arange(4) < np.array([[2], [4], [1]])
    given_ = arrays(rows) | {"length": np.array([3, 1, 5]), "mask": mask}
    found = rows_of(SEQUENCES, given_, 8)
    for name, expected in columns(rows).items():
        assert len(found[name]) == 3
        for left, right in zip(found[name], expected, strict=True):
            np.testing.assert_array_equal(left, right)


def test_arrays_without_lengths_are_rows_of_one_length() -> None:
    found = rows_of(SEQUENCES, arrays([row_of(3, 2), row_of(3, 2, 1)]), 8)
    assert [array.shape for array in found["x"]] == [(3, 2), (3, 2)]
    flat = rows_of(SEQUENCES, arrays([row_of(3, 2)]) | {"x": np.zeros((1, 3)), "length": np.array([2])}, 8)
    words = rows_of(SEQUENCES, {name: np.full(2, b"no", object) for name in SEQUENCES.inputs}, 8)
    assert [array.shape for array in words["x"]] == [(), ()]
    assert [array.shape for array in flat["x"]] == [(3,)]  # which has not the right axes, as is said later


@pytest.mark.parametrize(
    ("more", "error", "sentence"),
    [
        ({"length": np.array([1.0])}, DtypeMismatch, "'length' holds lengths, whole numbers; float64 came"),
        ({"length": np.array([b"a"], object)}, DtypeMismatch, "whole numbers; text came"),
        ({"mask": np.array([[b"a"]], object)}, ShapeMismatch, "bool [batch, axis]; text [1, 1] came"),
        ({"length": np.array([[1]])}, ShapeMismatch, "a length for each row, [1]; [1, 1] came"),
        ({"length": np.array([9])}, ShapeMismatch, "'x' has 3 values along its axis 'source'; lengths from 9 to 9"),
        ({"length": np.array([-1])}, ShapeMismatch, "lengths from -1 to -1 came"),
        ({"mask": np.ones((1, 2))}, ShapeMismatch, "a mask, bool [batch, axis]; float64 [1, 2] came"),
        ({"mask": np.array([[False, True]])}, ShapeMismatch, "one with gaps came"),
        ({"scale": np.zeros(2)}, ShapeMismatch, "the same number of rows; 'x' has 1, "),
        ({"scale": np.zeros(())}, ShapeMismatch, "the same number of rows"),
        (dict.fromkeys(SEQUENCES.inputs, np.zeros(())), ShapeMismatch, "rows; 'x' is a single value, "),
    ],
)
def test_lengths_that_do_not_go_with_their_arrays_are_refused(more: Row, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        rows_of(SEQUENCES, arrays([row_of(3, 2)]) | more, 8)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (
            {"weight": np.zeros(2)},
            ShapeMismatch,
            "Row 1: all inputs have the same length along the axis 'source'; 'x' has 3, 'weight' has 2. Fill up the",
        ),
        (
            {"x": np.zeros((3, 3))},
            ShapeMismatch,
            "Row 1: input 'x' takes float64 [source≥1, feature=2]; a value of",
        ),
        (
            {"x": np.zeros((0, 2)), "weight": np.zeros(0)},
            EmptyInput,
            "Row 1: the axis 'source' has 1 values or more",
        ),
        ({"x": np.zeros((9, 2)), "weight": np.zeros(9)}, SequenceTooLong, "9"),
    ],
)
def test_a_row_that_is_wrong_is_named(spoil: Row, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        group([row_of(3, 2), row_of(3, 2) | spoil])
    assert sentence in str(caught.value)


def test_requests_without_rows_or_with_uneven_columns_are_refused() -> None:
    with pytest.raises(EmptyInput, match="one row or more"):
        grouped(LANE, SEQUENCES, columns([]), bounds_for, 8, FAR)
    with pytest.raises(ShapeMismatch, match="'x' has 1, "):
        grouped(LANE, SEQUENCES, columns([row_of(1, 1)]) | {"scale": []}, bounds_for, 8, FAR)


def test_a_string_stands_for_its_bytes_or_its_words() -> None:
    def input_of(**more: Any) -> Any:
        contract = document()
        contract["signatures"]["serving_default"]["inputs"]["y"] |= more
        return parse_contract(contract).signatures["serving_default"].inputs["y"]

    np.testing.assert_array_equal(text_values("é1", input_of(dtype="int32", text="utf-8")), [195, 169, 49])
    words = text_values(" der  Hund", input_of(dtype="string", text="words", pad=""))
    assert words.tolist() == [b"der", b"Hund"]
    assert text_values("", input_of(dtype="string", text="words", pad="")).shape == (0,)


def test_more_rows_than_a_request_may_have_are_refused_before_they_are_looked_at() -> None:
    huge = np.broadcast_to(np.zeros((1, 2, 2)), (4_000_000, 2, 2))
    with pytest.raises(BatchTooLarge, match="may have 8 rows, as many as may wait; 4000000 came"):
        rows_of(SEQUENCES, dict.fromkeys(SEQUENCES.inputs, huge), 8)


def test_text_in_several_buckets_stays_text_of_any_width() -> None:
    found = group([row_of(1, 1), row_of(8, 8), row_of(2, 3)])
    texts = [np.array([b"a\0", b"bcd"], object), np.array([b"efghi"], object)]
    joined = found.joined([{"word": each} for each in texts])
    assert joined["word"].dtype == object
    assert joined["word"].tolist() == [b"a\0", b"efghi", b"bcd"]
    pairs = [np.array([[b"a", b"b"], [b"c", b""]], object), np.array([[b"dd", b"e"]], object)]
    assert found.joined([{"word": each} for each in pairs])["word"].tolist() == [
        [b"a", b"b"],
        [b"dd", b"e"],
        [b"c", b""],
    ]


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    tensor_ = replace(SEQUENCES.inputs["y"], text="utf-8")
    with pytest.raises(DtypeMismatch, match="surrogate"):
        text_values("\ud800", tensor_)


def test_a_signature_knows_its_ragged_axes_and_what_measures_them() -> None:
    assert [(axis.name, axis.least) for axis in SEQUENCES.ragged_axes] == [("source", 1), ("target", 0)]
    assert {name: tensor.dtype for name, tensor in SEQUENCES.measures.items()} == {"length": "int32", "mask": "bool"}
    assert (SEQUENCES.name, SEQUENCES.bounds) == ("sequences", BOUNDS)
    assert isinstance(SEQUENCES, Signature)
