"""Forecasting: errors of forecasts, row by row or with a state that is carried over, beside the seasonal naive.

Where rows say of which session they are, those of one session are, in their order, pieces of one series. A model with
a state then runs each series in a session: with the right value at each time step (teacher-forced), and from time to
time with its own forecasts (free-running); and each row from zero state, which shows what the state is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sluice.data import Column, Rows
from sluice.evaluator.document import Lines, Metric, Section
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import is_float, numbers_of, output_of, signature_of
from sluice.evaluator.tasks.carried import carried_values
from sluice.evaluator.tasks.errors import error_measures
from sluice.evaluator.tasks.naive import naive_scale
from sluice.evaluator.tasks.regression import by_time_step, predictions, row_values, time_axis
from sluice.evaluator.tasks.series import stepper_of
from sluice.evaluator.tasks.task import Array, Asked, Measure, Subject, Values
from sluice.policy.contract import Tensor
from sluice.policy.errors import BadRequest

_STATELESS = "stateless_"
_NO_ORIGIN = "no series goes on for a horizon after a season that is known"
_NO_SCALE = "no series is longer than a season and differs from one season to the next"


class Forecasting:
    """A signature with an output of floats; with sessions, a model's steps, and the signature if there is one."""

    answered, tested = "", "error"

    def __init__(self, subject: Subject, options: Options, *, sessions: bool) -> None:
        self._stepper = stepper_of(subject.contract, options.output) if sessions else None
        self._stateful, self._no_state = self._stepper is not None, sessions and self._stepper is None
        self._period, self._signature = options.period or 1, options.signature
        self._output = self._stateless_output(subject, options)
        self._horizon = options.horizon if self._stepper and self._stepper.feeds_itself else None
        self._no_feedback = bool(self._stepper and options.horizon and not self._horizon)
        self.whole_sessions = self._stateful
        self.stateless = _STATELESS if self._stateful and self._output else ""
        self.judged = f"{self.stateless}outputs"
        self._unit = self._unit_of(subject)
        self.measures: Mapping[str, Measure] = forecast_measures(
            self._unit, free=self._horizon is not None, stateless=self._stateful and self._output is not None
        )

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Nothing: what is judged is known without answers."""

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """What `row_values` gives, of the sessions and with `stateless_` of single rows; scaled and free errors."""
        stateless: dict[str, Array] = {}
        if self._output is not None:
            predicted = await predictions(self._as_pieces(rows), asked, self._signature, self._output)
            labels, axis = numbers_of(rows, predicted), self._axis(self._output, predicted)
            stateless = {**row_values(predicted, labels, axis)}
            if self._stepper is None:
                return {**stateless, "scaled_error": stateless["absolute_error"] / self._scales(rows, predicted)}
        assert self._stepper is not None
        found = await carried_values(rows, asked, self._stepper, self._horizon or 0, self._period)
        return {**found, **{f"{_STATELESS}{name}": array for name, array in stateless.items()}}

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """The error by time step of a row, and by horizon beside the seasonal naive."""
        named = {"state carried over" if self._stateful else "model": values["step_error"]}
        if f"{_STATELESS}step_error" in values:
            named["from zero state"] = values[f"{_STATELESS}step_error"]
        weights = values["weight"]
        return (*by_time_step(named, weights, self._unit), *self._by_horizon(values))

    def notes(self, values: Values) -> Sequence[str]:
        """How MASE is scaled, and what could not be done."""
        series = "of its session" if self._stateful else "that is its input"
        mase = (
            f"MASE: the mean absolute error over that of the seasonal naive within the series {series}, with a season "
            f"of {self._period} (Hyndman & Koehler 2006)."
        )
        found = [mase]
        if self._no_state:
            found.append("The model has no steps to carry a state over with: every row is forecast by itself.")
        if self._no_feedback:
            found.append("The model's output cannot be its input, so that it is not run freely.")
        return found

    def _stateless_output(self, subject: Subject, options: Options) -> Tensor | None:
        """The output that is judged of rows by themselves; None if only sessions can be asked."""
        try:
            signature = signature_of(subject, options.signature)
            if signature.states:
                raise BadRequest(
                    f"Signature {options.signature!r} takes a state, which rows of sessions have: name their column in "
                    "`columns.session`, or another signature."
                )
            return output_of(signature, options, is_float, "floats")
        except BadRequest:
            if self._stateful:
                return None
            raise

    def _unit_of(self, subject: Subject) -> str:
        if self._stepper is None:
            return self._output.unit if self._output else ""
        signature = self._stepper.scan or self._stepper.step
        return signature.outputs[self._stepper.output].unit if signature else ""

    def _axis(self, output: Tensor, predicted: Column) -> int | None:
        """Which axis of rows is time: by its name, or the first if there are several numbers."""
        named = time_axis(output)
        shape = np.shape(predicted[0]) if len(predicted) else ()
        return 0 if named is None and shape and np.prod(shape) > 1 else named

    def _as_pieces(self, rows: Rows) -> Rows:
        """Rows of single time steps as pieces of one, where the signature takes pieces."""
        if self._stepper is None or self._output is None or time_axis(self._output) is None:
            return rows
        shapes = self._stepper.inputs
        inputs = {name: _with_time(column, shapes.get(name)) for name, column in rows.inputs.items()}
        return replace(rows, inputs=inputs)

    def _scales(self, rows: Rows, predicted: Column) -> Array:
        """The seasonal naive's error within each row's input, where that is the series that is forecast; else NaN."""
        scales = np.full(len(rows), np.nan)
        series = next(iter(rows.inputs.values())) if len(rows.inputs) == 1 else ()
        for number, row in enumerate(map(np.asarray, series)):
            if _is_series(row, np.shape(predicted[number])):
                scales[number] = naive_scale(row.astype(np.float64), self._period)
        return scales

    def _by_horizon(self, values: Values) -> Sequence[Section]:
        total = (values["weight"] * values["free_origins"]).sum() if self._horizon else 0
        if not total > 0:
            return ()
        named = {"model": "free_error", "seasonal naive": "free_naive_error"}
        curves = {name: (values["weight"][:, np.newaxis] * values[each]).sum(axis=0) / total
                  for name, each in named.items()}  # fmt: skip
        return (
            Lines(
                title="Free-running",
                text=f"From every {self._horizon}th time step of a session the model forecasts with its own forecasts "
                f"as input; the seasonal naive repeats the last season of {self._period} that is known.",
                x="time steps ahead",
                y=f"MAE in {self._unit}" if self._unit else "MAE",
                series={name: tuple(enumerate(curve.tolist(), 1)) for name, curve in curves.items()},
            ),
        )


def forecast_measures(unit: str = "", *, free: bool, stateless: bool) -> Mapping[str, Measure]:
    """The metrics, with those of free runs and those of rows that are forecast by themselves beside sessions."""
    found = {**error_measures(unit), "mase": Measure(_mase, "lower", undefined=_NO_SCALE)}
    if free:
        about = partial(Measure, unit=unit, undefined=_NO_ORIGIN)
        found["free_running_mae"] = about(partial(_free, "free_error"), better="lower")
        found["seasonal_naive_mae"] = about(partial(_free, "free_naive_error"), better="neither")
    return {**found, **(error_measures(unit, _STATELESS) if stateless else {})}


def _with_time(column: Column, step: tuple[int | None, ...] | None) -> Column:
    """A column of single time steps, of this shape, as pieces of one."""
    if step is None or not len(column) or np.ndim(column[0]) != len(step):
        return column
    return [row[np.newaxis] for row in column] if isinstance(column, list) else column[:, np.newaxis]


def _is_series(row: Array, forecast: tuple[int, ...]) -> bool:
    """Whether an input is a series of what is forecast: one number at a time step, or as many as the forecast has."""
    features = row.shape[1:]
    return row.ndim > 0 and row.dtype.kind in "fiu" and (row[:1].size == 1 or features in {forecast, forecast[1:]})


def _mase(values: Values) -> float:
    """Over the rows that have a scale."""
    weights = values["weight"] * ~np.isnan(values["scaled_error"])
    total = (weights * values["elements"]).sum()
    return float((weights * np.nan_to_num(values["scaled_error"])).sum() / total) if total > 0 else np.nan


def _free(name: str, values: Values) -> float:
    """The mean over origins and the horizon."""
    total = (values["weight"] * values["free_origins"]).sum() * values[name].shape[1]
    return float((values["weight"] * values[name].sum(axis=1)).sum() / total) if total > 0 else np.nan
