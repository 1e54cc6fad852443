"""Rows of different lengths through `predict`, over both transports: each is answered as it would be alone."""

from typing import Any

import numpy as np
import orjson
import pytest

from sluice.client import AsyncClient
from sluice.client.predict_json import predict_body
from sluice.client.sequences import columns_of, fitted_columns, padded
from sluice.client.values import ModelSpec, PredictCall
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import BadRequest, DtypeMismatch, EmptyInput, SequenceTooLong, ShapeMismatch

LENGTHS = (3, 1, 8, 2)
SPANS = [np.arange(2 * length, dtype=np.float32).reshape(length, 2) + length for length in LENGTHS]
LISTS = [span.tolist() for span in SPANS]
OBJECTS = np.array([*SPANS, None], object)[:-1]
PADDED = np.full((4, 8, 2), 7, np.float32)
for row, span in zip(PADDED, SPANS, strict=True):
    row[: len(span)] = span
GIVEN: dict[str, Any] = {
    "lists": LISTS,
    "lists by name": {"x": LISTS},
    "arrays": SPANS,
    "an array of arrays": OBJECTS,
    "lists beside arrays": [LISTS[0], *SPANS[1:]],
    "whole numbers": [[[int(a), int(b)] for a, b in span] for span in LISTS],
    "padded, with their lengths": {"x": PADDED, "lengths": LENGTHS},
}
FLAWS: dict[str, tuple[dict[str, Any], type[BadRequest] | type[SequenceTooLong], str]] = {
    "another width": ({"values": [[[1, 2], [3, 4]], [[1]]]}, ShapeMismatch, r"^Row 1: Input 'x' takes .*\[1, 1\]"),
    "no time": ({"values": [[1, 2], [1]]}, ShapeMismatch, "^Row 0: Input 'x' takes float32 "),
    "a row that is no array": ({"values": [[[1, 2], [3]], [[1, 2]]]}, ShapeMismatch, "^Row 0 takes lists of one len"),
    "an empty row": ({"values": [[[1, 2]], []]}, EmptyInput, "^Row 1: Input 'x' "),
    "text": ({"values": [[["a", "b"]], [["c", "d"]] * 2]}, DtypeMismatch, "^Row 0: Input 'x' takes .* text came"),
    "too long": ({"values": [np.ones((9, 2)), SPANS[0]]}, SequenceTooLong, "up to 8 long; 9 came.* bucket_bounds"),
    "lengths twice": ({"values": {"x": LISTS, "lengths": LENGTHS}}, ShapeMismatch, "'lengths' came, too"),
    "lengths beyond the rows": ({"values": {"x": PADDED, "lengths": (9, 1, 1, 1)}}, ShapeMismatch, "8 values along"),
    "a model without sequences": (
        {"model": "plain", "values": [[1.0], [1.0, 2.0]]}, ShapeMismatch,
        r"'x' takes float32 .*; row 1 has 2 values where row 0 has 1 value\. Lists beside each other have the same",
    ),
}  # fmt: skip
_BATCH = {"name": "batch"}
TWO = parse_contract(
    {
        "schema": 1,
        "signatures": {
            "pairs": {
                "kind": "sequences",
                "inputs": {
                    "source": {"dtype": "int32", "axes": [_BATCH, {"name": "from", "ragged": True}], "pad": 9},
                    "target": {"dtype": "float32", "axes": [_BATCH, {"name": "to", "ragged": True}]},
                },
                "outputs": {"y": {"dtype": "float32", "axes": [_BATCH, {"name": "to"}]}},
                "lengths": {"from": "from_lengths"},
                "masks": {"to": "to_mask"},
            }
        },
    }
).signatures["pairs"]  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
async def test_rows_of_different_lengths_are_answered_as_if_each_were_alone(client: AsyncClient, name: str) -> None:
    outputs = await client.predict("spans", GIVEN[name])
    assert outputs["total"].tolist() == [span.sum(axis=0).tolist() for span in SPANS]
    assert outputs["running"].shape == (4,)
    for found, span in zip(outputs["running"], SPANS, strict=True):
        assert (found.dtype, found.tolist()) == (np.float32, np.cumsum(span, axis=0).tolist())
        found[:] = 0  # it is the caller's own


async def test_rows_of_one_length_come_back_as_one_array(client: AsyncClient) -> None:
    for rows in (np.ones((2, 3, 2)), [np.ones((3, 2))] * 2, np.ones((1, 3, 2))):
        outputs = await client.predict("spans", rows, ["running"])
        assert {name: (array.dtype, array.shape) for name, array in outputs.items()} == {
            "running": (np.float32, np.shape(rows))
        }


async def test_text_stands_for_a_row_where_the_contract_says_so(client: AsyncClient) -> None:
    for texts in (["ab", "", "zwölf"], [b"ab", b"", "zwölf".encode()], [[97, 98], [], [*"zwölf".encode()]]):
        outputs = await client.predict("texts", texts)
        assert outputs["largest"].tolist() == [98, -1, 195]


@pytest.mark.parametrize("name", FLAWS)
async def test_what_is_wrong_with_rows_is_told_over_both_transports(client: AsyncClient, name: str) -> None:
    given, kind, sentence = FLAWS[name]
    with pytest.raises(kind, match=sentence):
        await client.predict(**{"model": "spans"} | given)


def test_inputs_with_axes_of_their_own_are_sent_as_they_are_or_padded_with_lengths_and_masks() -> None:
    rows = {"source": [[1], [2, 3]], "target": [[0.5, 1.5, 2.5], [3.5]]}
    columns: Any = fitted_columns(TWO, columns_of(rows))
    body = orjson.loads(predict_body(PredictCall(ModelSpec("m"), TWO, columns, ())))
    assert body == {"signature_name": "pairs", "inputs": rows}
    inputs, cut = padded(TWO, columns)
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "source": [[1, 9], [2, 3]],
        "target": [[0.5, 1.5, 2.5], [3.5, 0, 0]],
        "from_lengths": [1, 2],
        "to_mask": [[True, True, True], [True, False, False]],
    }
    assert {name: (array.dtype, array.shape) for name, array in inputs.items()}["from_lengths"] == (np.int32, (2,))
    y = cut.joined([{"y": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}])["y"]
    assert [row.tolist() for row in y] == [[1, 2, 3], [4]]
