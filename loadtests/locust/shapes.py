"""Shapes of load: how many users there are at a time of a run. They know the time and the most users, nothing else."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

STAIRS = 5
_CALM = 0.2  # of the most users, before and after a spike
_SPIKE = (0.4, 0.6)  # when it is, as shares of the run
_WARM_UP_S, _WARM_UP = 60.0, 0.05  # the shorter of this and a share of the run, in which a soak's users come


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape by its share of users.

    Attributes:
        summary: for the help.
        share: from 0 to 1, at a time from 0 up to the length of the run, both in seconds.
    """

    summary: str
    share: Callable[[float, float], float]

    def users(self, now_s: float, length_s: float, most: int) -> int | None:
        """How many users there are; never none while the run lasts, and None when it is over."""
        if now_s >= length_s:
            return None
        return max(1, round(most * self.share(now_s, length_s)))


def _ramp(now_s: float, length_s: float) -> float:
    return now_s / length_s


def _steps(now_s: float, length_s: float) -> float:
    return (math.floor(STAIRS * now_s / length_s) + 1) / STAIRS


def _spike(now_s: float, length_s: float) -> float:
    begin, end = _SPIKE
    return 1.0 if begin <= now_s / length_s < end else _CALM


def _soak(now_s: float, length_s: float) -> float:
    return min(1.0, now_s / min(_WARM_UP_S, _WARM_UP * length_s))


SHAPES: Mapping[str, Shape] = {
    "ramp": Shape("from one user to all, steadily", _ramp),
    "steps": Shape(f"{STAIRS} stairs of equal height and length", _steps),
    "spike": Shape("a fifth of the users, and all of them in the middle fifth of the run", _spike),
    "soak": Shape("all users after a minute at most", _soak),
}
