"""Decides whether a process holds more and more, from what it held over the time of a soak.

It does not know what was measured, nor how. Times are seconds since the load began.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MEMORY_CHANGE = 0.02  # of the second quarter's mean, up or down
DESCRIPTORS_MORE = 2  # as clients come and go, though a quarter's median hardly moves
TELLING_S = 600.0  # in the first minutes memory still grows to what the traffic takes
_HOUR_S = 3600.0


class Series(NamedTuple):
    """What one process held: `values[i]` at `at_s[i]`, under a load that lasted `load_s`."""

    at_s: Sequence[float]
    values: Sequence[float]
    load_s: float

    def quarter(self, number: int) -> NDArray[np.float64]:
        """The values of one quarter of the load, 1 to 4.

        Raises:
            TooFew: there are none.
        """
        at = np.asarray(self.at_s) * 4 / self.load_s
        values = np.asarray(self.values, np.float64)[(at >= number - 1) & (at < number)]
        if not len(values):
            raise TooFew(f"no sample is from quarter {number} of a load of {self.load_s:g} s")
        return values

    def hourly(self) -> float:
        """How much more it is every hour, from the second quarter on: the line of least squares."""
        at, values = np.asarray(self.at_s), np.asarray(self.values, np.float64)
        counts = at >= self.load_s / 4
        return float(np.polyfit(at[counts], values[counts], 1)[0]) * _HOUR_S


class TooFew(Exception):
    """There are not enough samples to judge; the sentence says what is missing."""


class Flatness(NamedTuple):
    """A figure of the second quarter and of the last, and whether that is flat; None: too short to tell."""

    second: float
    last: float
    holds: bool | None

    @property
    def change(self) -> float:
        """As a share of the second quarter's."""
        return self.last / self.second - 1


def memory(series: Series) -> Flatness:
    """The means of both quarters, which may differ by `MEMORY_CHANGE`.

    The first quarter does not count: there the gateway learns its traffic, and every limit of what it remembers is
    reached. A mean takes out what comes and goes within a quarter.
    """
    second, last = (float(series.quarter(number).mean()) for number in (2, 4))
    flat = abs(last / second - 1) <= MEMORY_CHANGE
    return Flatness(second, last, flat if series.load_s >= TELLING_S else None)


def descriptors(series: Series) -> Flatness:
    """The medians of both quarters, of which the last may be higher by `DESCRIPTORS_MORE`."""
    second, last = (float(np.median(series.quarter(number))) for number in (2, 4))
    return Flatness(second, last, last <= second + DESCRIPTORS_MORE)
