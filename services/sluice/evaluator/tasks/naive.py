"""The seasonal naive forecast, "as one season ago", and the errors that are measured in its own."""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from sluice.evaluator.tasks.task import Array


def naive_scale(series: Array, period: int) -> float:
    """The mean absolute error of the seasonal naive within a series: mean of |y(t) - y(t - period)|.

    It is what MASE measures errors in: MASE = mean |e| / this (Hyndman & Koehler 2006, "Another look at measures of
    forecast accuracy"). NaN where the series has no more than one season, or repeats itself exactly.

    series: `[time, ...]`.
    """
    if len(series) <= period:
        return np.nan
    scale = float(np.abs(series[period:] - series[:-period]).mean())
    return scale if scale > 0 else np.nan


def naive_forecasts(series: Array, origin: int, horizon: int, period: int) -> Array:
    """For each of the `horizon` time steps after `origin`: the value of the last season that is known then.

    series: `[time, ...]`, with `period` or more steps up to `origin`, which is the last that is known.
    """
    steps = range(1, horizon + 1)
    return series[[origin + step - period * ceil(step / period) for step in steps]]


def origins(length: int, horizon: int, period: int) -> NDArray[np.int64]:
    """The time steps from which `horizon` steps are forecast: one after another, where a season is known."""
    found = np.arange(horizon - 1, length - horizon + 1, horizon)
    return found[found >= period - 1]
