"""Rows of different lengths: read from what a caller gave, padded for messages, and cut again.

It knows no transports.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sluice.client.signatures import fitted
from sluice.client.values import Array, Column, Values, array_of, by_name, is_text
from sluice.policy.contract import Signature, Tensor
from sluice.policy.errors import BadRequest, ShapeMismatch
from sluice.policy.sequences import Grouped, lengths_of, padded_inputs, rows_of, text_values
from sluice.policy.tensors import uneven as uneven_lists


def columns_of(values: Values) -> dict[str, Column]:
    """Own arrays of what a caller gave, by input name; where rows differ in shape, one for each row.

    Raises:
        ShapeMismatch: a row is made of lists of different lengths.
    """
    return {name: column_of(value) for name, value in by_name(values).items()}


def column_of(value: object) -> Column:
    """As `columns_of`, for one input or output."""
    rows: Any = [*value] if isinstance(value, np.ndarray) and _holds_rows(value) else value
    try:
        return array_of(rows)
    except ShapeMismatch:
        return [array_of(row, f"Row {number}") for number, row in enumerate(rows)]


def uneven(rows: Sequence[Array]) -> Array:
    """Rows of different shapes as numpy has them: an array of objects, each a row."""
    found = np.empty(len(rows), object)
    for number, row in enumerate(rows):
        found[number] = row
    return found


def fitted_columns(signature: Signature, given: Mapping[str, Column]) -> Mapping[str, Column]:
    """The inputs of a signature of sequences in its dtypes; rows that are padded are cut to the lengths beside them.

    Text may stand for the values along the ragged axis, where the contract says so.

    Raises:
        ShapeMismatch, DtypeMismatch, EmptyInput: they are not as the signature says.
    """
    columns = {name: _fitted(given[name], tensor) for name, tensor in signature.inputs.items()}
    measures = {name: given[name] for name in signature.measures if name in given}
    arrays = {name: column for name, column in {**columns, **measures}.items() if not isinstance(column, list)}
    if len(arrays) == len(columns) + len(measures):
        return rows_of(signature, arrays, sys.maxsize) if measures else arrays  # type: ignore[return-value]
    if measures:
        raise ShapeMismatch(
            f"Rows of different lengths are as long as they are; {', '.join(map(repr, measures))} came, too. Leave it "
            "out, or pad the rows."
        )
    return {name: [*column] for name, column in columns.items()}


def fitted_rows(column: Column, tensor: Tensor) -> Array:
    """An input of a signature whose rows have one shape.

    Raises:
        ShapeMismatch, DtypeMismatch, EmptyInput: it is another.
    """
    if not isinstance(column, list):
        return fitted(column, tensor)
    raise uneven_lists([row.tolist() for row in column], tensor, "row")


def padded(signature: Signature, columns: Mapping[str, Sequence[Array]]) -> tuple[dict[str, Array], Grouped]:
    """Rows as arrays with their lengths beside them, and what cuts the answers to length.

    Raises:
        ShapeMismatch, EmptyInput: they are not as the signature says.
    """
    lengths = lengths_of(signature, columns)
    rows = range(len(lengths))
    return padded_inputs(signature, columns, lengths, rows), Grouped(signature, lengths, (), [rows])


def _holds_rows(array: Array) -> bool:
    rows = array if array.dtype.hasobject and array.ndim == 1 else ()
    return len(rows) > 0 and all(isinstance(each, np.ndarray | list | tuple) for each in rows)


def _fitted(column: Column, tensor: Tensor) -> Column:
    if not isinstance(column, list) and not (tensor.text and column.ndim == 1 and _is_text(column)):
        return fitted(column, tensor)
    return [_fitted_row(number, np.asarray(row), tensor.row()) for number, row in enumerate(column)]


def _fitted_row(number: int, row: Array, tensor: Tensor) -> Array:
    try:
        if tensor.text and row.ndim == 0 and _is_text(row):
            text = row.item()
            return text_values(text.decode() if isinstance(text, bytes) else text, tensor)
        return fitted(row, tensor)
    except BadRequest as error:
        raise type(error)(f"Row {number}: {error.message}", **{**error.details, "row": number}) from None


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "SU" or (array.dtype.hasobject and is_text(array))
