"""Decides whether today's rows still look like the calibration's, from the p-values that they had.

It does not know the rows, nor who is told. What it says of a window holds for rows that do not depend on each other.
"""

from collections import deque
from collections.abc import Iterable
from math import log, sqrt

import numpy as np


class Drift:
    """The latest p-values of one method, and how far they are from those that the calibration's own rows have.

    While rows look like the calibration's, their p-values are spread evenly from 0 to 1. The distance is that of
    Kolmogorov and Smirnov between the scores in the window and the calibration's, the greatest difference of their
    distribution functions: as p is a rank among the calibration's `rows` scores, p-values alone tell it. P-values of
    two methods that must agree are not spread evenly: watch each method by itself.
    """

    def __init__(self, rows: int, window: int = 1000) -> None:
        """rows: how many calibration scores the p-values were found with. window: how many of the latest are kept."""
        self._rows = rows
        self._latest: deque[float] = deque(maxlen=window)

    def __len__(self) -> int:
        """How many p-values are in the window."""
        return len(self._latest)

    def observe(self, p_values: Iterable[float]) -> None:
        """Add the p-values of rows."""
        self._latest.extend(p_values)

    @property
    def distance(self) -> float:
        """0: just as the calibration, to 1: nothing is alike. 0 while the window is empty."""
        count = len(self._latest)
        if not count:
            return 0.0
        places = (np.sort(np.array(self._latest)) * (self._rows + 1) - 1) / self._rows
        steps = np.arange(count + 1) / count
        return float(max((steps[1:] - places).max(), (places - steps[:-1]).max()))

    def critical(self, level: float = 0.001) -> float:
        """The distance that is exceeded with a probability of about `level` while nothing has changed.

        sqrt(-ln(level / 2) / 2 · (n + m) / (n · m)) for n rows in the window and m of the calibration (Smirnov 1948,
        "Table for Estimating the Goodness of Fit of Empirical Distributions"; the first term of the series). 1, which
        cannot be exceeded, while the window is empty or where the formula is above it.
        """
        count = len(self._latest)
        if not count:
            return 1.0
        return min(1.0, sqrt(-log(level / 2) / 2 * (count + self._rows) / (count * self._rows)))
