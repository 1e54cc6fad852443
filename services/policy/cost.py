"""Decides whether rows of a short bucket had better ride in a batch of a longer one, from what runs have taken.

It does not know what runs, nor on what machine.
"""

from collections import deque

import numpy as np

_KEPT = 8  # latest runs of each octave of elements: enough that a stall is one of many
_FEWEST = 3  # runs of an octave before it counts, so that no single run decides
_FIT_EVERY = 16  # runs: a fit takes longer than to note a run, about 0.2 ms


class RunCost:
    """How long a run takes: about `fixed_s + element_s · elements`, both 0 or more, where elements = size · bound.

    Runs are slow for reasons of their own, by a hundred times if it happens (a first call, a pause), but never fast:
    least squares would follow them. This is the fit of H. Theil (1950) and P. K. Sen (1968), the median of the slopes
    between runs and the median of what is left, which stands until nearly a third of the runs are spoilt. Slopes are
    taken between runs of which one has at least twice the other's elements, so that noise does not pass for a slope;
    until there are any, nothing is known.

    rows: how many real rows a run has of late, on average. fits: how often the costs were found anew.

    Of each octave of elements (from a power of two up to the next) the latest runs are kept. That bounds the memory,
    keeps the spread when all runs are of one size for a while, and shows a lasting change once most of them have it.
    """

    def __init__(self) -> None:
        self.known = False
        self.fits = 0
        self.rows = 1.0
        self.fixed_s = 0.0
        self.element_s = 0.0
        self._octaves: dict[int, deque[tuple[float, float]]] = {}
        self._runs = 0

    def observe(self, elements: int, run_s: float, rows: int = 1) -> None:
        """Learn from a run that succeeded. `elements`, 1 or more, are all that ran: filler rows and padding too."""
        self.rows += (rows - self.rows) / _FIT_EVERY
        octave = self._octaves.setdefault(elements.bit_length(), deque(maxlen=_KEPT))
        octave.append((float(elements), run_s))
        self._runs += 1
        if self._runs % _FIT_EVERY == 0:
            self._fit()

    def rides(self, rows: int, short: int, long: int) -> bool:
        """Whether `rows` rows of bound `short` cost less in a batch of bound `long`, which runs anyway, than alone.

        Alone they cost a run, fixed_s + element_s · rows · short. In the other batch they make it longer by
        element_s · rows · long, at most: where they take the place of filler rows, by nothing. So they ride if
        element_s · rows · (long - short) < fixed_s. While the costs are not known they do not.
        """
        return self.known and self.element_s * rows * (long - short) < self.fixed_s

    def _fit(self) -> None:
        runs = [run for octave in self._octaves.values() if len(octave) >= _FEWEST for run in octave]
        elements, run_s = np.array(runs).reshape(-1, 2).T
        more, less = np.nonzero(elements[:, np.newaxis] >= 2 * elements)
        if not more.size:
            return
        slopes = (run_s[more] - run_s[less]) / (elements[more] - elements[less])
        self.element_s = max(0.0, float(np.median(slopes)))
        self.fixed_s = float(np.median(run_s - self.element_s * elements))
        if self.fixed_s < 0.0:
            self.fixed_s, self.element_s = 0.0, float(np.median(run_s / elements))
        self.known = True
        self.fits += 1
