"""Labels as they were written, and of one kind throughout a data set. It does not know what they are right for."""

from typing import Any

import numpy as np

from sluice.data.rows import Array, Labels, evened
from sluice.data.values import Values, Wrong, are_texts, at_row, texts_of, word_of

_NUMBERS = "biuf"
_MIXED = "expected labels of one kind in all rows; got names, and lists or fractions"


def labels_of(values: Values, column: str) -> Labels:
    """Labels as they were written: numbers as an array, texts as a list, lists as an array, or as arrays of their own.

    Raises:
        Wrong: a row has something else, or numbers that are not finite.
    """
    if are_texts(values):
        return texts_of(values, column)
    if isinstance(values, np.ndarray):
        return _finite(values, column)
    if any(isinstance(value, list) for value in values):
        return evened([[_list_label(row, value, column) for row, value in enumerate(values)]])  # type: ignore[no-any-return]
    for row, value in enumerate(values):
        if not isinstance(value, str | int | float):
            raise Wrong(
                f"expected {column!r} to hold a name, a number, or a list for each row; got {word_of(value)}", row
            )
    if any(isinstance(value, str) for value in values):
        if any(isinstance(value, float) for value in values):
            raise Wrong(_MIXED)
        return [str(value) for value in values]
    return _finite(np.asarray(values), column)


def _list_label(row: int, value: Any, column: str) -> Array:
    expected = f"expected {column!r} to hold lists of numbers or names, of one length on each axis, as in another row"
    label = at_row(row, expected, np.asarray, value)
    if not label.ndim or label.dtype.kind not in f"{_NUMBERS}U":
        raise Wrong(f"{expected}; got {word_of(value)}", row)
    return label if label.dtype.kind == "U" else _finite(label[np.newaxis], column, row)[0]


def _finite(array: Array, column: str, row: int | None = None) -> Array:
    if array.dtype.kind not in _NUMBERS:
        raise Wrong(f"expected {column!r} to hold a name, a number, or a list for each row; got {array.dtype.name}")
    if array.dtype.kind == "f" and not (right := np.isfinite(array).reshape(len(array), -1).all(axis=1)).all():
        raise Wrong(f"expected {column!r} to hold finite numbers; got NaN or infinity", row or int(right.argmin()))
    return array


class LabelKind:
    """What all labels of a data set are: texts where any are, else numbers of the widest dtype that came."""

    def __init__(self) -> None:
        self._texts = self._others = False
        self._dtypes = set[np.dtype[Any]]()

    def see(self, labels: Labels) -> None:
        """Raises: Wrong: they are fractions or lists where others are names, or the other way round."""
        if isinstance(labels, list) and isinstance(labels[0], str):
            self._texts = True
        else:
            arrays = [labels] if isinstance(labels, np.ndarray) else labels
            self._dtypes.update(array.dtype for array in arrays)
            self._others |= isinstance(labels, list) or labels.ndim > 1 or labels.dtype.kind == "f"
        if self._texts and self._others:
            raise Wrong(_MIXED)

    def of(self, labels: Labels) -> Labels:
        """Labels that were seen, as they are whichever rows are read with them."""
        if self._texts:
            return [str(label) for label in labels.tolist()] if isinstance(labels, np.ndarray) else labels
        dtype = np.result_type(*self._dtypes)
        return labels.astype(dtype) if isinstance(labels, np.ndarray) else [each.astype(dtype) for each in labels]
