"""Turns a file's columns into inputs, weights and names, or says which row is wrong.

It does not know formats, nor what a row is called in them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.data import bounds
from sluice.data.rows import Array, Column, evened
from sluice.policy.contract import BFLOAT16, Tensor, numpy_dtype
from sluice.policy.errors import BadRequest, InputNotFinite
from sluice.policy.sequences import text_values
from sluice.policy.tensors import read_tensor

Values = Any  # a value for each row: an array, or a list

_BITS = {"true": True, "1": True, "false": False, "0": False}
_CANNOT = (ValueError, TypeError, OverflowError, KeyError)


class Wrong(Exception):
    """What is wrong with a column, at one of its rows if `row` is not None."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.message, self.row = message, row


def input_of(values: Values, tensor: Tensor) -> Column:
    """The rows of an input in its dtype: an array, or each row's where they differ along a ragged axis.

    Raises:
        Wrong: a row is not as the input takes it.
    """
    if isinstance(values, np.ndarray) and values.dtype == "V2":
        values = values.view(BFLOAT16)  # which numpy's files do not know
    if tensor.text and are_texts(values):
        return _objects(texts_of(values, tensor.name))
    ragged = any(axis.ragged for axis in tensor.axes)
    try:
        if not ragged or isinstance(values, np.ndarray):
            return read_tensor(values, tensor, any_shape=not tensor.ranked)
    except BadRequest as error:
        if isinstance(values, np.ndarray) and not isinstance(error, InputNotFinite):
            raise Wrong(error.message) from None  # it is so of all rows
        _rows(values, tensor)
        raise Wrong(error.message) from None  # of rows that are right, but do not go together
    return evened([_rows(values, tensor)])  # type: ignore[no-any-return]


def _rows(values: Values, tensor: Tensor) -> list[Array]:
    return [_row(row, value, tensor) for row, value in enumerate(values)]


def _row(row: int, value: Any, tensor: Tensor) -> Array:
    try:
        if tensor.text and isinstance(value, str):
            return text_values(value, tensor)
        return read_tensor(value, tensor.row(), any_shape=not tensor.ranked)
    except BadRequest as error:
        raise Wrong(error.message, row) from None


def is_text(column: Column, tensor: Tensor) -> bool:
    """Whether the rows of an input are text that stands for the values along its ragged axis."""
    return tensor.text is not None and isinstance(column, np.ndarray) and column.dtype.hasobject and column.ndim == 1


def side_by_side(columns: Sequence[Values], sizes: Sequence[int], tensor: Tensor, *, typed: bool) -> Array:
    """Values of several columns as rows of one shape; without `typed` they are text, which may say numbers.

    Raises:
        Wrong: they say none.
    """
    dtype = numpy_dtype(tensor.dtype)
    if dtype.hasobject or typed:
        kept = [np.array(column, object) if dtype.hasobject else np.asarray(column) for column in columns]
        return np.stack(kept, axis=1).reshape(len(kept[0]), *sizes)
    what = f"the input {tensor.name}" if tensor.name else "the label"
    return _parsed([*zip(*columns, strict=True)], dtype, what).reshape(-1, *sizes)


def _parsed(rows: Sequence[Sequence[str]], dtype: np.dtype[Any], what: str) -> Array:
    def numbers(rows: Sequence[Sequence[str]]) -> Array:
        for row in rows:
            check_digits(row)
        if dtype.kind == "b":
            return np.array([[_BITS[cell.strip().lower()] for cell in row] for row in rows])
        return np.array(rows, dtype if dtype.kind in "iu" else np.float64)

    try:
        return numbers(rows)
    except _CANNOT:
        return np.concatenate(
            [at_row(row, f"expected numbers for {what}", numbers, [each]) for row, each in enumerate(rows)]
        )


def check_digits(texts: Iterable[str]) -> None:
    """Raises: ValueError: a text has an underscore, which Python lets stand among digits."""
    if strange := next((text for text in texts if "_" in text), None):
        raise ValueError(f"{strange!r:.40} has an underscore")


def at_row(row: int, expected: str, make: Callable[..., Array], *given: Any) -> Array:
    try:
        return make(*given)
    except _CANNOT as error:
        raise Wrong(f"{expected}; {error}", row) from None


def weights_of(values: Values, column: str) -> NDArray[np.float64]:
    """float64 `[rows]`.

    Raises:
        Wrong: a row has something else than a number from 0 to `bounds.WEIGHT`.
    """
    expected = f"expected {column!r} to hold a number of 0 or more for each row"
    found = np.array([at_row(row, expected, _number, value) for row, value in enumerate(values)], np.float64)
    right = (found >= 0) & (found <= bounds.WEIGHT)
    if not right.all():
        row = int(right.argmin())
        raise Wrong(f"{expected}, up to {bounds.WEIGHT:g}; got {found[row]:g}", row)
    return found


def _number(value: Any) -> Any:
    if isinstance(value, list | np.ndarray | None) or np.iscomplexobj(value):
        raise TypeError(f"got {word_of(value)}")
    if isinstance(value, str):
        check_digits([value])
    return float(value)


def names_of(values: Values, column: str) -> list[str]:
    """A name for each row, such as its group's: a text, a whole number, or true or false.

    Raises:
        Wrong: a row has something else, or a name that is too long.
    """
    names = texts_of(values, column) if are_texts(values) else _names(values, column)
    most = bounds.NAME_LENGTH
    for row, name in enumerate(names):
        if len(name) > most:
            raise Wrong(
                f"expected {column!r} to hold names of at most {most} characters; got one of {len(name):,}", row
            )
    return names


def _names(values: Values, column: str) -> list[str]:
    names = values.tolist() if isinstance(values, np.ndarray) else values
    for row, name in enumerate(names):
        if not isinstance(name, str | int):
            raise Wrong(f"expected {column!r} to hold a name or a whole number for each row; got {word_of(name)}", row)
    return [str(name) for name in names]


def are_texts(values: Values) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype.kind in "US"
    return bool(values) and all(isinstance(value, str | bytes) for value in values)


def texts_of(values: Values, column: str) -> list[str]:
    return [
        _text(row, value, column)
        for row, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values)
    ]


def _text(row: int, value: str | bytes, column: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value.encode().decode()
    except UnicodeError as error:
        raise Wrong(f"expected {column!r} to hold text in UTF-8; {error}", row) from None


def _objects(texts: Sequence[str]) -> Array:
    found = np.empty(len(texts), object)
    found[:] = texts
    return found


def word_of(value: Any) -> str:
    if value is None:
        return "null"
    return "a list" if isinstance(value, list) else f"{value!r:.40}"
