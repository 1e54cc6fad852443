"""Forecasting: series in sessions, with the right values and with their own forecasts, against a plain loop."""

import asyncio
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.naive import naive_scale
from sluice.evaluator.tasks.task import Task
from sluice.policy.contract import Axis, Contract
from sluice.policy.errors import BadRequest, SessionsFull
from tests.evaluator.tasks.puppet import (
    Puppet,
    PuppetSession,
    found,
    options,
    rows_of,
    signature,
    subject,
    tensor,
    values_of,
)

RNG = np.random.default_rng(3)
TIME, RAGGED = Axis("time"), Axis("time", ragged=True)
STEP = signature("step", [tensor("x", 1)], [tensor("y", 1, unit="°C")], "step")
SCAN = signature("scan", [tensor("x", TIME, 1)], [tensor("y", TIME, 1, unit="°C")], "scan")
WHOLE = signature("serving_default", [tensor("x", RAGGED, 1)], [tensor("y", TIME, 1, unit="°C")], "sequences")


def step(state: float, inputs: Any) -> Any:
    state = 0.5 * state + float(inputs["x"][0])
    return state, {"y": np.array([state])}


def ran(series: Any, state: float = 0.0) -> list[float]:
    """What the model forecasts after each value of a series."""
    answers = []
    for value in np.ravel(series):
        state = 0.5 * state + value
        answers.append(state)
    return answers


def from_zero(inputs: Any) -> Any:
    return {"y": [np.array(ran(row))[:, np.newaxis] for row in inputs["x"]]}


def stateful(*signatures: Any, **given: Any) -> Task:
    return task_for("forecasting", subject(*(signatures or (STEP, SCAN, WHOLE))), options(**given), sessions=True)


def puppet() -> Puppet:
    return Puppet(from_zero, step=step, start=0.0)


def stretches(count: int, pieces: int, length: int) -> Any:
    """Series, and their rows side by side: row i goes on where row i - count ended."""
    series = RNG.normal(size=(count, pieces * length))
    labels = RNG.normal(size=series.shape)
    cut = [each.reshape(count, pieces, length, 1).swapaxes(0, 1).reshape(-1, length, 1) for each in (series, labels)]
    names = [f"s{row % count}" for row in range(count * pieces)]
    return series, labels, rows_of(cut[1], x=cut[0], sessions=names)


async def test_the_state_of_a_session_is_carried_over_from_row_to_row() -> None:
    series, labels, rows = stretches(3, 4, 5)
    own = stateful()
    asked = puppet()
    values = await values_of(own, rows, asked)
    errors = np.array([ran(each) for each in series]) - labels
    assert own.measures["mae"].of(values) == pytest.approx(np.abs(errors).mean(), rel=1e-12)
    assert own.measures["mse"].of(values) == pytest.approx((errors**2).mean(), rel=1e-12)
    by_row = np.abs(errors).reshape(3, 4, 5).swapaxes(0, 1).reshape(12, 5)
    assert values["absolute_error"] == pytest.approx(by_row.sum(axis=1))
    assert values["step_error"] == pytest.approx(by_row)
    assert asked.open == 0
    alone = np.array([ran(row) for row in rows.inputs["x"]]) - rows.labels[:, :, 0]
    assert own.measures["stateless_mae"].of(values) == pytest.approx(np.abs(alone).mean(), rel=1e-12)
    assert values["stateless_outputs"][:, :, 0] == pytest.approx(alone + rows.labels[:, :, 0], rel=1e-6)
    assert (own.judged, own.whole_sessions) == ("stateless_outputs", True)
    (lines,) = own.sections(values, {})
    assert list(lines.series) == ["state carried over", "from zero state"]


async def test_single_time_steps_and_long_series_give_the_same_as_pieces() -> None:
    series, labels, _ = stretches(2, 1, 300)  # more than a scan has
    own = stateful()
    single = rows_of(labels.reshape(-1, 1), x=series.reshape(-1, 1), sessions=["a"] * 300 + ["b"] * 300)
    whole = rows_of(labels[..., np.newaxis], x=series[..., np.newaxis], sessions=["a", "b"])
    one, other = [await values_of(own, rows, puppet()) for rows in (single, whole)]
    assert len(one["elements"]) == 600
    for name in ("mae", "rmse", "r2", "mase"):
        assert own.measures[name].of(one) == pytest.approx(own.measures[name].of(other), rel=1e-12), name
    assert own.measures["stateless_mae"].of(one) == pytest.approx(np.abs(series - labels).mean())


async def test_a_model_without_a_scan_is_stepped() -> None:
    _, _, rows = stretches(2, 2, 4)
    steps_only, both = stateful(STEP), stateful()
    values = await values_of(steps_only, rows, puppet())
    assert "stateless_mae" not in steps_only.measures
    assert steps_only.judged == "outputs"
    assert steps_only.measures["mae"].of(values) == both.measures["mae"].of(await values_of(both, rows, puppet()))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(6, 20), st.integers(1, 3))
async def test_forecasts_that_go_on_from_forecasts_are_those_of_a_plain_loop(
    horizon: int, period: int, length: int, pieces: int
) -> None:
    series = RNG.normal(size=length * pieces)
    labels = np.append(series[1:], 0.5)  # what is forecast is the series itself
    rows = rows_of(labels.reshape(pieces, length, 1), x=series.reshape(pieces, length, 1), sessions=["s"] * pieces)
    own, asked = stateful(horizon=horizon, period=period), puppet()
    values = await values_of(own, rows, asked)
    free: list[list[float]] = []
    naive: list[list[float]] = []
    for origin in range(horizon - 1, len(series), horizon):
        if origin + horizon > len(series) or origin < period - 1:
            continue
        state, forecast = ran(series[: origin + 1])[-1], ran(series[: origin + 1])[-1]
        errors = []
        for ahead in range(horizon):
            if ahead:
                state = 0.5 * state + forecast
                forecast = state
            errors.append(abs(forecast - labels[origin + ahead]))
        free.append(errors)
        known = series[: origin + 1]
        naive.append([abs(known[origin + h - period * ceil(h / period)] - labels[origin + h - 1])
                      for h in range(1, horizon + 1)])  # fmt: skip
    assert values["free_origins"].sum() == len(free) == asked.forks
    assert asked.open == 0
    if free:
        assert own.measures["free_running_mae"].of(values) == pytest.approx(np.mean(free))
        assert own.measures["seasonal_naive_mae"].of(values) == pytest.approx(np.mean(naive))
        lines = own.sections(values, {})[-1]
        assert np.array(lines.series["model"])[:, 1] == pytest.approx(np.mean(free, axis=0))
    else:
        assert np.isnan(own.measures["free_running_mae"].of(values))


async def test_what_is_forecast_freely_counts_for_the_row_of_its_origin() -> None:
    series = RNG.normal(size=12)
    rows = rows_of(np.append(series[1:], 0).reshape(4, 3, 1), x=series.reshape(4, 3, 1), sessions=["s"] * 4)
    values = await values_of(stateful(horizon=4), rows, puppet())
    assert values["free_origins"].tolist() == [0, 1, 1, 0]


def slow_scale(series: Any, period: int) -> float:
    terms = [abs(series[t] - series[t - period]) for t in range(period, len(series))]
    return sum(terms) / len(terms)


async def test_mase_scales_each_session_by_its_own_seasonal_naive() -> None:
    series, labels, rows = stretches(3, 4, 5)
    labels[2] *= 100
    rows.labels[2::3] *= 100
    own = stateful(period=4)
    scaled = [
        abs(forecast - right) / slow_scale(labels[at], 4)
        for at in range(3)
        for forecast, right in zip(ran(series[at]), labels[at], strict=True)
    ]
    assert own.measures["mase"].of(await values_of(own, rows, puppet())) == pytest.approx(np.mean(scaled), rel=1e-12)


async def test_mase_of_rows_is_scaled_by_the_series_that_is_their_input() -> None:
    windows, labels = RNG.normal(size=(20, 9, 1)), RNG.normal(size=(20, 3))
    windows[4] = 1.0  # the same all the time: it has no scale
    answers = RNG.normal(size=(20, 3))
    plain = signature("serving_default", [tensor("x", 9, 1)], [tensor("y", 3)])
    own = task_for("forecasting", subject(plain, contract=False), options(period=2), sessions=False)
    values = await values_of(own, rows_of(labels, x=windows), Puppet(lambda inputs: {"y": answers}))
    scaled = [np.abs(answers[row] - labels[row]) / slow_scale(windows[row, :, 0], 2) for row in range(20) if row != 4]
    assert own.measures["mase"].of(values) == pytest.approx(np.mean(scaled), rel=1e-12)
    assert values["step_error"] == pytest.approx(np.abs(answers - labels))
    assert (own.judged, own.whole_sessions) == ("outputs", False)


def test_a_series_of_one_season_or_without_change_has_no_scale() -> None:
    assert np.isnan(naive_scale(np.arange(3.0), 3))
    assert np.isnan(naive_scale(np.tile([1.0, 2.0], 4), 2))


async def test_sessions_run_side_by_side_and_no_more_than_64_at_a_time() -> None:
    _, _, rows = stretches(100, 1, 2)

    class Slow(PuppetSession):
        async def scan(self, inputs: Any, outputs: Any) -> Any:
            for _ in range(3):
                await asyncio.sleep(0)
            return await super().scan(inputs, outputs)

    class Slowly(Puppet):
        async def session(self) -> Any:
            return Slow(self, 0.0)

    asked = Slowly(from_zero, step=step)
    await stateful().values(rows, asked)
    assert (asked.open, asked.most_open) == (0, 64)


async def test_sessions_and_forks_are_closed_where_one_fails_and_the_error_is_its_own() -> None:
    _, _, rows = stretches(10, 2, 6)
    count = 0

    def fails(state: Any, inputs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 40:
            raise SessionsFull("as many sessions as may be open")
        return step(state, inputs)

    asked = Puppet(from_zero, step=fails, start=0.0)
    with pytest.raises(SessionsFull):
        await stateful(horizon=3).values(rows, asked)
    assert asked.open == 0


async def test_sessions_and_forks_are_closed_where_the_evaluation_is_cancelled() -> None:
    _, _, rows = stretches(10, 2, 6)
    reached = asyncio.Event()

    class Stuck(Puppet):
        async def session(self) -> Any:
            return Waits(self, 0.0)

    class Waits(PuppetSession):
        async def fork(self) -> Any:
            self.puppet.forks += 1
            return Waits(self.puppet, self.state)

        async def step(self, inputs: Any, outputs: Any) -> Any:
            if asked.forks == 10:
                reached.set()
                await asyncio.Event().wait()
            return await super().step(inputs, outputs)

    asked = Stuck(from_zero, step=step)
    running = asyncio.ensure_future(stateful(horizon=3).values(rows, asked))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asked.open == 0


async def test_without_sessions_a_stateful_model_is_asked_for_rows() -> None:
    _, _, rows = stretches(2, 2, 4)
    own = task_for("forecasting", subject(STEP, SCAN, WHOLE), options(horizon=2), sessions=False)
    assert not own.whole_sessions
    assert "free_running_mae" not in own.measures
    measured = found(own, await values_of(own, rows, puppet()))
    both = found(stateful(), await values_of(stateful(), rows, puppet()))
    assert measured["mae"] == both["stateless_mae"]


async def test_sessions_of_a_model_without_steps_are_said_not_to_matter() -> None:
    own = stateful(signature("serving_default", [tensor("x", 4, 1)], [tensor("y", 4, 1)]))
    assert not own.whole_sessions
    values = await values_of(own, stretches(2, 2, 4)[2], Puppet(lambda inputs: {"y": inputs["x"]}))
    assert "no steps to carry a state over" in " ".join(own.notes(values))


def test_an_output_that_cannot_be_an_input_is_not_fed_back() -> None:
    wide = signature("step", [tensor("x", 1)], [tensor("y", 2)], "step")
    own = stateful(wide, horizon=3)
    assert "free_running_mae" not in own.measures
    assert "cannot be its input" in " ".join(own.notes({}))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": np.zeros((2, 3, 2))}, r"Row 6: expected 'x' of shape \['time', 1\]; got \[3, 2\]"),
        ({"x": np.zeros(2)}, r"Row 6: expected 'x' of shape \['time', 1\]; got \[\]"),
        ({"z": np.zeros((2, 3, 1))}, "time steps take 'x'; the data has z"),
    ],
)
async def test_rows_that_are_no_pieces_are_refused(inputs: Any, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        await stateful(STEP).values(rows_of(np.zeros((2, 3)), places=6, sessions=["a", "b"], **inputs), puppet())


async def test_a_label_for_each_time_step_is_expected() -> None:
    rows = rows_of(np.zeros((2, 1)), x=np.zeros((2, 3, 1)), sessions=["a", "b"])
    with pytest.raises(BadRequest, match=r"Row 0: expected a label of the answer's shape, \[3, 1\]; got \[1\]"):
        await stateful(STEP).values(rows, puppet())


def test_a_signature_of_steps_alone_takes_sessions() -> None:
    contract = Contract("", {"step": STEP}, {})
    only = subject(STEP)._replace(contract=contract)
    with pytest.raises(BadRequest, match=r"`options.signature` is a signature of puppet version 1: step"):
        task_for("forecasting", only, options(), sessions=False)
