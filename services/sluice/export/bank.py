"""Chooses the few rows of features that stand for all rows of their class. It does not know what is made of them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SEED = 20260101
_ROUNDS = 20
_TINY = 1e-12


def normalised(rows: Floats) -> Floats:
    """The rows of [n, d], each of length 1; a row of zeros stays as it is."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)


def bank(features: Floats, labels: NDArray[np.int64], most: int) -> Floats:
    """At most so many rows of each class, in order of the classes: all of them, or one near each centre of k-means.

    Args:
        features: [n, d]; centres are those of the normalised rows.
        labels: int [n].
        most: of one class.
    """
    random = np.random.default_rng(_SEED)
    return np.concatenate([_chosen(features[labels == each], most, random) for each in np.unique(labels)])


def _chosen(rows: Floats, most: int, random: np.random.Generator) -> Floats:
    if len(rows) <= most:
        return rows
    unit = normalised(rows)
    centres = unit[_spread(unit, most, random)]
    for _ in range(_ROUNDS):
        nearest = _squared_distances(unit, centres).argmin(axis=1)
        filled = np.unique(nearest)
        centres[filled] = [unit[nearest == each].mean(axis=0) for each in filled]
    return rows[np.unique(_squared_distances(unit, centres).argmin(axis=0))]


def _spread(rows: Floats, count: int, random: np.random.Generator) -> list[int]:
    """First centres, each drawn by its squared distance from those before (k-means++, Arthur & Vassilvitskii 2007)."""
    chosen = [int(random.integers(len(rows)))]
    distances = _squared_distances(rows, rows[chosen])[:, 0]
    while len(chosen) < count and distances.any():
        chosen.append(int(random.choice(len(rows), p=distances / distances.sum())))
        distances = np.minimum(distances, _squared_distances(rows, rows[chosen[-1:]])[:, 0])
    return chosen


def _squared_distances(rows: Floats, centres: Floats) -> Floats:
    """[n, d] and [m, d] to [n, m]."""
    lengths = (rows**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.maximum(lengths - 2 * rows @ centres.T, 0.0)
