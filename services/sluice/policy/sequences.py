"""Decides which rows of a request are padded together, and cuts their answers to length again.

It does not know JSON, models or batches of several clients; bounds are the caller's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Lane, Ticket, corners
from sluice.policy.contract import Signature, Tensor, fits, numpy_dtype
from sluice.policy.errors import BackendError, BatchTooLarge, DtypeMismatch, EmptyInput, ShapeMismatch
from sluice.policy.tensors import counted

Array = NDArray[Any]
Columns = Mapping[str, Sequence[Array]]  # by input, each row's own array, without batch axis
Lengths = tuple[int, ...]  # a row's, in the order of the signature's ragged axes
BoundsFor = Callable[[Lengths], Lengths]  # the bounds of the bucket that a row of these lengths belongs to


def check_rows(rows: int, limit: int) -> None:
    """Raises: BatchTooLarge: more rows than a request may have, whatever they are."""
    if rows > limit:
        raise BatchTooLarge(
            f"A request may have {limit} rows, as many as may wait; {rows} came. Split it, or raise queue_rows.",
            limit=limit,
        )


def text_values(text: str, tensor: Tensor) -> Array:
    """The values that a string stands for, as `Tensor.text` says: its UTF-8 bytes, int32, or its words, bytes.

    Raises:
        DtypeMismatch: it is no text, as half of a surrogate pair is not.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise DtypeMismatch(f"Input {tensor.name!r} takes text; half of a surrogate pair came.") from None
    if tensor.text == "utf-8":
        return np.frombuffer(encoded, np.uint8).astype(np.int32)
    words = encoded.split()
    values = np.empty(len(words), object)
    values[:] = words
    return values


def rows_of(signature: Signature, given: Mapping[str, Array], limit: int) -> Columns:
    """The rows of arrays `[rows, ...]`, cut to the lengths that are given beside them; masks are read as lengths.

    Without lengths every row is as long as the array.

    Raises:
        ShapeMismatch, DtypeMismatch: they do not go together.
        BatchTooLarge: more rows than `limit`.
    """
    rows = _row_count(given)
    check_rows(rows, limit)
    lengths: dict[str, Array] = {}
    for axis, name in signature.length_inputs.items():
        if name in given:
            lengths[axis] = _checked_lengths(name, given[name], rows)
    for axis, name in signature.mask_inputs.items():
        if name in given and axis not in lengths:
            lengths[axis] = _unmasked(name, given[name])
    return {name: _cut(tensor, given[name], lengths) for name, tensor in signature.inputs.items()}


def _row_count(given: Mapping[str, Array]) -> int:
    counts = {name: len(array) if array.ndim else None for name, array in given.items()}
    rows = set(counts.values())
    if len(rows) != 1 or None in rows:
        raise ShapeMismatch(f"All inputs of a request have the same number of rows; {counted(counts)}.")
    return rows.pop() or 0


def _checked_lengths(name: str, lengths: Array, rows: int) -> Array:
    if lengths.dtype.kind not in "iu":
        raise DtypeMismatch(f"Input {name!r} holds lengths, whole numbers; {_named(lengths.dtype)} came.")
    if lengths.shape != (rows,):
        raise ShapeMismatch(f"Input {name!r} holds a length for each row, [{rows}]; {list(lengths.shape)} came.")
    return lengths


def _named(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.hasobject else dtype.name


def _unmasked(name: str, mask: Array) -> Array:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        came = f"{_named(mask.dtype)} {list(mask.shape)}"
        raise ShapeMismatch(f"Input {name!r} is a mask, bool [batch, axis]; {came} came.")
    lengths: Array = mask.sum(axis=1)
    if not np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, np.newaxis]):
        raise ShapeMismatch(f"Input {name!r} is a mask of padding behind each row; one with gaps came.")
    return lengths


def _cut(tensor: Tensor, array: Array, lengths: Mapping[str, Array]) -> Sequence[Array]:
    along = [(at, lengths[axis.name]) for at, axis in enumerate(tensor.axes) if axis.ragged and axis.name in lengths]
    if not along or array.ndim != len(tensor.axes):
        return [array[row, ...] for row in range(len(array))]  # arrays, also where a row is a single value
    for at, ends in along:
        if ((ends < 0) | (ends > array.shape[at])).any():
            raise ShapeMismatch(
                f"Input {tensor.name!r} has {array.shape[at]} values along its axis {tensor.axes[at].name!r}; lengths "
                f"from {ends.min()} to {ends.max()} came."
            )
    cuts = [[slice(None)] * (array.ndim - 1) for _ in array]
    for at, ends in along:
        for cut, end in zip(cuts, ends.tolist(), strict=True):
            cut[at - 1] = slice(end)
    return [row[tuple(cut)] for row, cut in zip(array, cuts, strict=True)]


def lengths_of(signature: Signature, columns: Columns) -> list[Lengths]:
    """Each row's lengths.

    Raises:
        ShapeMismatch: a row is not as the signature says, or its inputs differ along an axis that they share.
        EmptyInput: no rows, or a row is shorter than the signature allows.
    """
    rows = {len(column) for column in columns.values()}
    if len(rows) != 1:
        counts = {name: len(column) for name, column in columns.items()}
        raise ShapeMismatch(f"All inputs of a request have the same number of rows; {counted(counts)}.")
    if rows == {0}:
        raise EmptyInput("A request needs one row or more; got none.")
    return [_lengths(signature, {name: column[row] for name, column in columns.items()}, row) for row in range(*rows)]


def _lengths(signature: Signature, arrays: Mapping[str, Array], row: int) -> Lengths:
    found: dict[str, int] = {}
    for name, tensor in signature.inputs.items():
        array, axes = arrays[name], tensor.axes[1:]
        if not fits(array.shape, tensor.shape[1:]):
            raise ShapeMismatch(
                f"Row {row}: input {name!r} takes {tensor.row()}; a value of shape {list(array.shape)} came.",
                row=row, got=list(array.shape),
            )  # fmt: skip
        for axis, length in zip(axes, array.shape, strict=True):
            if axis.ragged and found.setdefault(axis.name, length) != length:
                lengths = {
                    other: size
                    for other, its in signature.inputs.items()
                    for each, size in zip(its.axes[1:], arrays[other].shape, strict=False)
                    if each.name == axis.name
                }
                raise ShapeMismatch(
                    f"Row {row}: all inputs have the same length along the axis {axis.name!r}; {counted(lengths)}. "
                    "Fill up the shorter ones as in training.",
                    row=row,
                )
    for axis in signature.ragged_axes:
        if found[axis.name] < axis.least:
            raise EmptyInput(
                f"Row {row}: the axis {axis.name!r} has {axis.least} values or more; {found[axis.name]} came.", row=row
            )
    return tuple(found[axis.name] for axis in signature.ragged_axes)


@dataclass(frozen=True, slots=True)
class Grouped:
    """A request's rows by bucket: for each ticket, which rows of the request are in it."""

    signature: Signature
    lengths: Sequence[Lengths]
    tickets: Sequence[Ticket]
    rows: Sequence[Sequence[int]]

    def joined(self, outcomes: Sequence[Mapping[str, Array]]) -> dict[str, Array | list[Array]]:
        """The outputs of all rows in the request's order, each cut to its row's lengths.

        An output whose rows differ in shape is a list of arrays, one for each row.

        Raises:
            BackendError: an output is shorter than its row.
        """
        return {name: self._column(name, [outcome[name] for outcome in outcomes]) for name in outcomes[0]}

    def _column(self, name: str, arrays: Sequence[Array]) -> Array | list[Array]:
        if len(arrays) == 1 and not self._ragged(name):
            return arrays[0]
        column: list[Any] = [None] * len(self.lengths)
        for array, rows in zip(arrays, self.rows, strict=True):
            for row, values in zip(rows, array, strict=True):
                column[row] = self._cropped(name, values, self.lengths[row])
        if len({np.shape(values) for values in column}) > 1:
            return column
        if arrays[0].dtype.hasobject:  # numpy would make text of one width of them
            own = [_as_row(each) for each in column]
            return corners((len(own), *own[0].shape[1:]), b"", arrays[0].dtype, own)
        return np.stack(column)

    def _ragged(self, name: str) -> list[tuple[int, int]]:
        """The row's axes of an output that are cut, each with its place among the lengths."""
        places = {axis.name: place for place, axis in enumerate(self.signature.ragged_axes)}
        tensor = self.signature.outputs.get(name)
        axes = tensor.axes[1:] if tensor else ()
        return [(at, places[axis.name]) for at, axis in enumerate(axes) if axis.name in places]

    def _cropped(self, name: str, values: Array, lengths: Lengths) -> Array:
        for at, place in self._ragged(name):
            length = lengths[place]
            if values.ndim <= at or values.shape[at] < length:
                raise BackendError(
                    f"The model answered {name!r} of a sequence of length {length} with shape {list(values.shape)}."
                )
            values = values[(slice(None),) * at + (slice(length),)]
        return values


def _as_row(value: Any) -> Array:
    """A row's values, or its only value, as `[1, ...]`."""
    row = np.empty((1, *np.shape(value)), object)
    row[0] = value
    return row


def grouped(
    lane: Lane, signature: Signature, columns: Columns, bounds_for: BoundsFor, largest: int, deadline: float
) -> Grouped:
    """A request's rows in tickets, one for each bucket that it has rows in, of `largest` rows at most.

    `lane` says what else the rows share. Each ticket's inputs are padded as far as its own rows need; the batch pads
    them to the bucket's bounds.

    Raises:
        ShapeMismatch, EmptyInput: as `lengths_of`; besides all that `bounds_for` raises.
    """
    lengths = lengths_of(signature, columns)
    buckets: dict[Lengths, list[int]] = {}
    for row, own in enumerate(lengths):
        buckets.setdefault(bounds_for(own), []).append(row)
    parts = [
        (bounds, rows[start : start + largest])
        for bounds, rows in buckets.items()
        for start in range(0, len(rows), largest)
    ]
    tickets = [
        Ticket(
            lane_of(lane, signature, bounds), padded_inputs(signature, columns, [lengths[row] for row in rows], rows),
            len(rows), deadline,
        )
        for bounds, rows in parts
    ]  # fmt: skip
    for ticket, (_, rows) in zip(tickets, parts, strict=True):
        ticket.elements = sum(prod(lengths[row]) for row in rows)
    return Grouped(signature, lengths, tickets, [rows for _, rows in parts])


@lru_cache(1024)
def lane_of(lane: Lane, signature: Signature, bounds: Lengths) -> Lane:
    """The lane of a bucket: rows padded to `bounds` all have one form."""
    sizes = dict(zip((axis.name for axis in signature.ragged_axes), bounds, strict=True))
    given = [
        (
            name,
            numpy_dtype(tensor.dtype),
            tuple(sizes[axis.name] if axis.size is None else axis.size for axis in tensor.axes[1:]),
        )
        for name, tensor in signature.inputs.items()
    ]
    lengths = [(name, np.dtype(np.int32), ()) for name in signature.length_inputs.values()]
    masks = [(name, np.dtype(np.bool_), (sizes[axis],)) for axis, name in signature.mask_inputs.items()]
    pads = {name: tensor.pad for name, tensor in signature.inputs.items()} | dict.fromkeys(
        signature.mask_inputs.values(), False
    )
    return lane._replace(rows_like=(*given, *lengths, *masks), bounds=bounds, pads=tuple(pads.items()))


def padded_inputs(
    signature: Signature, columns: Columns, lengths: Sequence[Lengths], rows: Sequence[int]
) -> dict[str, Array]:
    """The inputs of some rows, each `[rows, ...]`, padded to the longest of them, with their lengths and masks."""
    inputs = {
        name: stacked([columns[name][row] for row in rows], tensor.pad, numpy_dtype(tensor.dtype))
        for name, tensor in signature.inputs.items()
    }
    places = {axis.name: place for place, axis in enumerate(signature.ragged_axes)}
    along = {axis: np.array([own[place] for own in lengths], np.int32) for axis, place in places.items()}
    masks = {
        name: np.arange(along[axis].max()) < along[axis][:, np.newaxis] for axis, name in signature.mask_inputs.items()
    }
    return inputs | {name: along[axis] for axis, name in signature.length_inputs.items()} | masks


def stacked(rows: Sequence[Array], pad: Any, dtype: np.dtype[Any]) -> Array:
    """Rows of one rank, in one array `[rows, ...]` as large as the largest of them; `pad` fills the rest."""
    if len(rows) == 1:
        return rows[0][np.newaxis]
    shape = tuple(map(max, zip(*(row.shape for row in rows), strict=True)))
    return corners((len(rows), *shape), pad, dtype, [row[np.newaxis] for row in rows])
