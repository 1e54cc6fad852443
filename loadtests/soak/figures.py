"""Says of what a process held over the time of a soak whether it holds more and more.

It does not know what was measured, nor what is allowed. Times are seconds since the load began.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TooFew(Exception):
    """There are not enough samples; the sentence says what is missing."""


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
            raise TooFew(
                f"expected samples in each quarter of the load, got none in quarter {number} of {self.load_s:g} s"
            )
        return values

    def means(self) -> tuple[float, float]:
        """Of the second quarter and of the last. A mean takes out what comes and goes within a quarter.

        The first does not count: there a gateway learns its traffic and fills what it remembers.
        """
        second, last = (float(self.quarter(number).mean()) for number in (2, 4))
        return second, last

    def medians(self) -> tuple[float, float]:
        """Of the second quarter and of the last."""
        second, last = (float(np.median(self.quarter(number))) for number in (2, 4))
        return second, last


def change(values: tuple[float, float]) -> float:
    """From the first value to the second, up or down, as a share of the first."""
    before, after = values
    return abs(after / before - 1)
