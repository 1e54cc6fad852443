"""Some rows of a data set: their inputs, and what is written beside them. It does not know where they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Column = Array | list[Array]  # `[rows, ...]`, or each row's array where rows differ in length
Labels = Array | list[Any]  # `[rows, ...]`, or a text, or an array, for each row


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a data set.

    `places` are the rows' places in the data set, int64 `[rows]`; an input whose rows are text is an object array of
    `str`; `labels` are as they were written: an array, or a list of texts or arrays; `weights` are float64 `[rows]`, 1
    where there are none.
    """

    places: NDArray[np.int64]
    inputs: Mapping[str, Column]
    labels: Labels | None
    weights: NDArray[np.float64]
    groups: Sequence[str] | None = None
    sessions: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Those at these places of `self`, in this order."""
        return Rows(
            self.places[rows],
            {name: _taken(column, rows) for name, column in self.inputs.items()},
            None if self.labels is None else _taken(self.labels, rows),
            self.weights[rows],
            None if self.groups is None else [self.groups[row] for row in rows.tolist()],
            None if self.sessions is None else [self.sessions[row] for row in rows.tolist()],
        )


def joined(parts: Sequence[Rows]) -> Rows:
    """All of them, one after the other, as if they had been read at once."""
    first = parts[0]
    return Rows(
        np.concatenate([part.places for part in parts]),
        {name: evened([part.inputs[name] for part in parts]) for name in first.inputs},
        None if first.labels is None else evened([part.labels for part in parts if part.labels is not None]),
        np.concatenate([part.weights for part in parts]),
        None if first.groups is None else [each for part in parts for each in part.groups or ()],
        None if first.sessions is None else [each for part in parts for each in part.sessions or ()],
    )


def evened(columns: Sequence[Labels]) -> Any:
    """Columns one after the other: as an array where all rows are arrays of one shape, or else as a list."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if len(arrays) == len(columns) and len({array.shape[1:] for array in arrays}) == 1:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    rows = [row for column in columns for row in column]
    alike = all(isinstance(row, np.ndarray) for row in rows) and len({row.shape for row in rows}) == 1
    return np.stack(rows) if alike else rows


def _taken(column: Labels, rows: NDArray[np.int64]) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else evened([[column[row] for row in rows.tolist()]])
