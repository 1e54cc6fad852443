"""When the requests of an open loop are due."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def arrivals(per_s: float, seconds: float, seed: int) -> Array:
    """The times of a Poisson process: float64 `[n]`, increasing, in seconds from 0 to `seconds`."""
    dice = np.random.default_rng(seed)
    times = np.cumsum(dice.exponential(1 / per_s, int(per_s * seconds + 6 * (per_s * seconds) ** 0.5) + 16))
    return times[times < seconds]
