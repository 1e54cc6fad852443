"""Which rate is tried next, to find the highest one that is held.

It does not know what a rate is of, nor what it means to hold it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

TRIES = 2  # a rate is given up when so many probes of it have failed, as one may have met a bad moment of the machine
PROBES = 18
_DIGITS = 3  # of a rate that is tried


@dataclass(frozen=True, slots=True)
class Tried:
    """A probe at a rate, and whether it held it."""

    rate: float
    held: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """start: the rate that is tried first. least: lower ones are not tried.

    precision: the search ends when the highest rate that is held and the lowest that is not differ by this share.
    probes: it ends after so many, too.
    """

    start: float
    least: float
    precision: float = 0.05
    probes: int = PROBES


def highest(tried: Sequence[Tried]) -> float | None:
    """The highest rate that a probe has held."""
    return max((each.rate for each in tried if each.held), default=None)


def next_rate(tried: Sequence[Tried], bounds: Bounds) -> float | None:
    """The rate of the next probe, doubled or halved until one is held and another is not, then bisected; None: enough.

    A rate that one probe has failed is tried again before it counts as not held.
    """
    if len(tried) >= bounds.probes:
        return None
    low = highest(tried)
    failed = Counter(each.rate for each in tried if not each.held and (low is None or each.rate > low))
    if again := [rate for rate, times in failed.items() if times < TRIES]:
        return again[0]
    high = min(failed, default=None)
    if high is None:
        return bounds.start if low is None else _rounded(2 * low)
    if low is None:
        return rate if (rate := _rounded(high / 2)) >= bounds.least else None
    return _rounded(sqrt(low * high)) if high > low * (1 + bounds.precision) else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.{_DIGITS}g}")
