"""Values of rows whose state is carried over: each session runs through the model as one series.

It does not know how a model is moved on, nor metrics.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from sluice.data import Column, Rows
from sluice.evaluator.tasks.asking import numbers_of
from sluice.evaluator.tasks.naive import naive_forecasts, naive_scale, origins
from sluice.evaluator.tasks.pieces import Pieces, pieces_of
from sluice.evaluator.tasks.regression import row_values
from sluice.evaluator.tasks.series import Stepper, together
from sluice.evaluator.tasks.task import Array, Asked, Values


async def carried_values(rows: Rows, asked: Asked, stepper: Stepper, horizon: int, period: int) -> Values:
    """What `row_values` gives, teacher-forced, and:

    scaled_error: a row's summed error in that of the seasonal naive within the labels of its session. free_error and
    free_naive_error, `[rows, horizon]`: summed over the `free_origins`, `[rows]`, in the row, of the model that runs
    freely and of the seasonal naive, the mean over the numbers of a time step. With a horizon of 0 there are none.

    Raises:
        BadRequest: rows are no pieces of series, or a label has not the shape of its forecast.
    """
    sessions = pieces_of(rows, stepper.inputs)
    starts = [origins(len(each), horizon, period).tolist() if horizon else [] for each in sessions]
    forecasts = await together(
        [partial(stepper.run, asked, each.series, own, horizon) for each, own in zip(sessions, starts, strict=True)]
    )
    answers = [found.teacher_forced for found in forecasts]
    predicted = _by_row(rows, sessions, answers)
    labels = numbers_of(rows, predicted)
    pieces = not all(each.single for each in sessions)
    found = {**row_values(predicted, labels, 0 if pieces else None), **_no_free_errors(len(rows), horizon)}
    found["scaled_error"] = np.full(len(rows), np.nan)
    for each, own in zip(sessions, forecasts, strict=True):
        right = each.joined([labels[row] for row in each.rows])
        found["scaled_error"][[*each.rows]] = found["absolute_error"][[*each.rows]] / naive_scale(right, period)
        for origin, free in own.free_running.items():
            _add_free_errors(found, each, origin, right[origin : origin + horizon], free, period)
    return found


def _by_row(rows: Rows, sessions: Sequence[Pieces], answers: Sequence[Array]) -> Column:
    """What each row's time steps gave, float64, in the order of the rows."""
    found: list[Array] = [np.zeros(0)] * len(rows)
    for pieces, series in zip(sessions, answers, strict=True):
        for row, own in zip(pieces.rows, pieces.cut(series.astype(np.float64)), strict=True):
            found[row] = own
    return np.stack(found) if len({each.shape for each in found}) == 1 else found


def _no_free_errors(rows: int, horizon: int) -> dict[str, Array]:
    errors = {name: np.zeros((rows, horizon)) for name in ("free_error", "free_naive_error")}
    return {**errors, "free_origins": np.zeros(rows)}


def _add_free_errors(
    values: dict[str, Array], pieces: Pieces, origin: int, right: Array, free: Array, period: int
) -> None:
    """Count what was forecast after a time step for the row that holds it."""
    row, horizon = pieces.row_at(origin), len(right)
    naive = naive_forecasts(next(iter(pieces.series.values())).astype(np.float64), origin, horizon, period)
    for name, forecast in (("free_error", free.astype(np.float64)), ("free_naive_error", naive)):
        values[name][row] += np.abs(forecast.reshape(horizon, -1) - right.reshape(horizon, -1)).mean(axis=1)
    values["free_origins"][row] += 1
