"""Decides whether rows of a short bucket had better ride in a batch of a longer one, from what runs have taken.

It does not know what runs, nor on what machine.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_KEPT = 4  # latest runs of each cell: enough that a stall is one of many
_FEWEST = 3  # runs of a cell before it counts, so that no single run decides
_FIT_EVERY = 16  # runs: a fit takes longer than to note a run, about 0.3 ms
_ROUNDS = 10  # of reweighting, after which what is left of the error is less than noise
_EXACT = 1e-3  # relative errors below this count alike
_SHORTEST_S = 1e-9


class RunCost:
    """How long a run takes: about `fixed_s + (step_s + element_s · size) · length`, each of them 0 or more.

    `size` rows ran, filler too, padded to `length` elements each. A recurrent model does one thing after another for
    each element of length, whoever shares the batch, which takes `step_s`; a convolution has none of that.

    Runs are slow for reasons of their own, by a hundred times if it happens (a first call, a pause), but never fast:
    least squares would follow them. This fit has the least sum of relative absolute errors, to which no run adds more
    than 1 by being slow; it is found by reweighted least squares (E. J. Schlossmacher, 1973). Until there are runs of
    which one has at least twice the other's elements, so that noise does not pass for a cost, nothing is known.

    rows: how many real rows a run has of late, on average. fits: how often the costs were found anew.

    Of each cell, an octave of sizes and one of lengths (from a power of two up to the next), the latest runs are kept.
    That bounds the memory, keeps the spread when all runs are alike for a while, and shows a lasting change once most
    of them have it.
    """

    def __init__(self) -> None:
        self.known = False
        self.fits = 0
        self.rows = 1.0
        self.fixed_s = self.step_s = self.element_s = 0.0
        self._cells: dict[tuple[int, int], deque[tuple[float, float, float]]] = {}
        self._runs = 0

    def observe(self, size: int, length: int, run_s: float, rows: int = 1) -> None:
        """Learn from a run that succeeded; `size` and `length` are 1 or more."""
        self.rows += (rows - self.rows) / _FIT_EVERY
        cell = self._cells.setdefault((size.bit_length(), length.bit_length()), deque(maxlen=_KEPT))
        cell.append((float(size), float(length), max(run_s, _SHORTEST_S)))
        self._runs += 1
        if self._runs % _FIT_EVERY == 0:
            self._fit()

    def rides(self, rows: int, short: int, long: int) -> bool:
        """Whether `rows` rows of bound `short` cost less in a batch of bound `long`, which runs anyway, than otherwise.

        Their padding costs element_s · rows · (long - short), at most: where they take the place of filler rows,
        nothing. What they spare is a run's fixed_s + step_s · short; but of that only their share, as others will come
        to their bucket and need that run: it is shared by as many rows as a run has of late, or by them if they are
        more. While the costs are not known they do not ride.
        """
        shared_by = max(rows, self.rows)
        return self.known and self.element_s * shared_by * (long - short) < self.fixed_s + self.step_s * short

    def _fit(self) -> None:
        runs = [run for cell in self._cells.values() if len(cell) >= _FEWEST for run in cell]
        size, length, run_s = np.array(runs).reshape(-1, 3).T
        elements = size * length
        if not runs or elements.max() < 2 * elements.min():
            return
        columns = np.stack([np.ones_like(size), length, elements], axis=1)
        self.fixed_s, self.step_s, self.element_s = _least_absolute(columns, run_s).tolist()
        self.known = True
        self.fits += 1


def _least_absolute(columns: Array, values: Array) -> Array:
    """The coefficients, 0 or more, with which `columns` `[n, k]` come nearest to `values` `[n]`, by relative error."""
    relative = columns / values[:, np.newaxis]
    scale = relative.mean(axis=0)
    relative = relative / scale  # so that the equations are well posed
    active, weights, found = list(range(len(scale))), np.ones(len(values)), np.zeros(len(scale))
    for _ in range(_ROUNDS):
        active, found[:] = _nonnegative(relative, weights, active)
        weights = 1 / np.maximum(np.abs(relative @ found - 1), _EXACT)
    coefficients: Array = found / scale
    return coefficients


def _nonnegative(relative: Array, weights: Array, active: list[int]) -> tuple[list[int], Array]:
    """Weighted least squares of 1 by the `active` columns; the most negative coefficient is left out until none is."""
    while True:
        chosen = relative[:, active]
        weighted = chosen * weights[:, np.newaxis]
        own = np.linalg.lstsq(weighted.T @ chosen, weighted.sum(axis=0), rcond=1e-9)[0]
        if own.min() >= 0 or len(active) == 1:
            found = np.zeros(relative.shape[1])
            found[active] = np.maximum(own, 0.0)
            return active, found
        active = [column for column in active if column != active[int(own.argmin())]]
