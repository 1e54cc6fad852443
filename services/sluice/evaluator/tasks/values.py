"""Values of rows: means that are weighted, and the values of parts as those of the whole."""

from collections.abc import Mapping, Sequence

import numpy as np

from sluice.evaluator.tasks.task import Array, Values


def weighted_mean(weights: Array, values: Array) -> float:
    """Σ w x / Σ w, float64; NaN where nothing has a weight. It adds pairwise, in order, so that it is reproducible."""
    total = weights.sum()
    return float((weights * values).sum() / total) if total > 0 else float("nan")


def ratio(values: Values, above: str, below: str) -> float:
    """Σ w a / Σ w b: so that rows of more elements count more; NaN where there is nothing to divide by."""
    weights = values["weight"]
    total = (weights * values[below]).sum()
    return float((weights * values[above]).sum() / total) if total > 0 else float("nan")


def joined(parts: Sequence[Values]) -> Mapping[str, Array]:
    """The values of parts, in their order, as one.

    Where rows of the parts differ in shape, as forecasts of pieces that differ in length do, the shorter ones end in
    NaN.
    """
    return {name: _concatenated([part[name] for part in parts]) for name in parts[0]}


def padded_rows(rows: Sequence[Array]) -> Array:
    """Rows of one rank as an array, float64 `[rows, ...]`, the shorter ones with NaN at their end."""
    sizes = np.max([row.shape for row in rows], axis=0) if rows and rows[0].ndim else ()
    found = np.full((len(rows), *sizes), np.nan)
    for own, row in zip(found, rows, strict=True):
        own[tuple(slice(size) for size in row.shape)] = row
    return found


def _concatenated(arrays: Sequence[Array]) -> Array:
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    sizes = np.max([array.shape[1:] for array in arrays], axis=0)
    return np.concatenate(
        [
            np.pad(array, [(0, 0), *((0, size - own) for size, own in zip(sizes, array.shape[1:], strict=True))],
                   constant_values=np.nan)
            for array in arrays
        ]
    )  # fmt: skip
