"""Regression: how far the numbers that are answered are from the right ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from sluice.data import Column, Rows
from sluice.evaluator.document import Lines, Metric, Section
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import answered_numbers, is_float, numbers_of, output_of, signature_of
from sluice.evaluator.tasks.errors import error_measures, error_values, step_errors
from sluice.evaluator.tasks.task import Array, Asked, Measure, Subject, Values
from sluice.evaluator.tasks.values import padded_rows
from sluice.policy.contract import TIME, Tensor

_STEPS = {TIME, "horizon", "step"}  # names of axes along which there is a forecast for each time step


class Regression:
    """A signature with an output of floats, of any shape, that labels have, too."""

    whole_sessions, stateless = False, ""
    judged, answered, tested = "outputs", "", "error"

    def __init__(self, subject: Subject, options: Options) -> None:
        self._signature = options.signature
        self._output = output_of(signature_of(subject, options.signature), options, is_float, "floats")
        self.measures: Mapping[str, Measure] = error_measures(self._output.unit)

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Nothing: what is judged is known without answers."""

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """What `error_values` gives; outputs; where rows have time steps, each one's error."""
        predicted = await predictions(rows, asked, self._signature, self._output)
        return row_values(predicted, numbers_of(rows, predicted), time_axis(self._output))

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """The error by time step, where rows have time steps."""
        return by_time_step({"model": values["step_error"]}, values["weight"], self._output.unit)

    def notes(self, values: Values) -> Sequence[str]:
        return ()


async def predictions(rows: Rows, asked: Asked, signature: str, output: Tensor) -> Column:
    """The judged output of rows, in float64."""
    return answered_numbers(await asked.predict(rows.inputs, [output.name], signature), output.name, rows)


def row_values(predicted: Column, labels: Column, axis: int | None) -> Values:
    """Errors of rows, and the outputs in float32; `axis` is which axis of a row is time."""
    steps = np.zeros((len(predicted), 0)) if axis is None else step_errors(predicted, labels, axis)
    outputs = padded_rows(predicted) if isinstance(predicted, list) else predicted
    return {**error_values(predicted, labels), "step_error": steps, "outputs": outputs.astype(np.float32)}


def time_axis(output: Tensor) -> int | None:
    """Which axis of the output's rows is time, by its name."""
    return next((place for place, axis in enumerate(output.axes[1:]) if axis.name in _STEPS), None)


def by_time_step(errors: Mapping[str, Array], weights: Array, unit: str) -> Sequence[Section]:
    """Curves of errors `[rows, time]`, which are NaN where a row has no such step; none where there is one step."""
    series = {name: _curve(each, weights) for name, each in errors.items() if each.shape[1] > 1}
    if not any(series.values()):
        return ()
    return (
        Lines(
            title="Error by time step",
            text="The mean absolute error of each time step of a row, over all rows.",
            x="time step of the row",
            y=f"MAE in {unit}" if unit else "MAE",
            series=series,
        ),
    )


def _curve(errors: Array, weights: Array) -> tuple[tuple[float, float], ...]:
    there = ~np.isnan(errors)
    counted = (weights[:, np.newaxis] * there).sum(axis=0)
    sums = (weights[:, np.newaxis] * np.where(there, errors, 0.0)).sum(axis=0)
    return tuple((float(step + 1), float(sums[step] / counted[step])) for step in np.flatnonzero(counted).tolist())
