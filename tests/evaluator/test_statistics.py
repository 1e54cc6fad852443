"""Intervals: scipy's percentile bootstrap over rows, wider over sessions, with a bounded cost."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sluice.evaluator.statistics import Bootstrap, Resampled, metrics_of
from sluice.evaluator.tasks.task import Measure
from sluice.evaluator.tasks.values import weighted_mean

RNG = np.random.default_rng(4)


def mean(name: str, values: Any) -> float:
    return weighted_mean(values["weight"], values[name])


MEASURES = {
    "a": Measure(partial(mean, "a"), "higher", share=True),
    "b": Measure(partial(mean, "b"), "lower", unit="m"),
}


def values_of(rows: int, **given: Any) -> dict[str, Any]:
    return {"a": RNG.random(rows) < 0.8, "b": RNG.normal(size=rows), "weight": np.ones(rows), **given}


def test_intervals_are_those_of_scipy() -> None:
    values = values_of(200)
    found = metrics_of(MEASURES, values, Bootstrap(0.9, 300, 7))
    for name, metric in found.items():
        expected = stats.bootstrap(
            (values[name].astype(float),), np.mean, n_resamples=300, batch=16, method="percentile",
            confidence_level=0.9, rng=np.random.default_rng(7),
        ).confidence_interval  # fmt: skip
        assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
        assert metric.value == pytest.approx(values[name].mean(), rel=1e-12)
    assert (found["a"].share, found["b"].unit, found["b"].better) == (True, "m", "lower")


def test_they_are_the_same_for_a_seed_whatever_is_measured_beside() -> None:
    values = values_of(50)
    one = metrics_of(MEASURES, values, Bootstrap(0.95, 100, 3))
    alone = metrics_of({"b": MEASURES["b"]}, values, Bootstrap(0.95, 100, 3))
    assert one["b"] == alone["b"]
    assert one["b"] != metrics_of(MEASURES, values, Bootstrap(0.95, 100, 4))["b"]


def test_rows_of_a_session_are_drawn_together() -> None:
    sessions = np.repeat([f"s{number}" for number in range(30)], 20)
    shuffled = RNG.permutation(600)
    values = values_of(600, b=np.repeat(RNG.normal(size=30), 20)[shuffled])  # rows of one are alike
    of_sessions = metrics_of(MEASURES, values, Bootstrap(0.95, 400, 1, sessions[shuffled]))["b"]
    of_rows = metrics_of(MEASURES, values, Bootstrap(0.95, 400, 1))["b"]
    assert of_sessions.high - of_sessions.low > 3 * (of_rows.high - of_rows.low)  # √20, if it were exact
    by_session = [values["b"][sessions[shuffled] == name].mean() for name in np.unique(sessions)]
    expected = stats.bootstrap(
        (by_session,), np.mean, n_resamples=400, batch=16, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (of_sessions.low, of_sessions.high) == pytest.approx((expected.low, expected.high))


def test_the_cost_has_a_bound_and_the_width_is_that_of_all_rows() -> None:
    rows, most = 90_000, 0
    values = values_of(rows)

    def counted(own: Any) -> float:
        nonlocal most
        if isinstance(own, Resampled):
            most = max(most, len(own["weight"]) if len(own["weight"]) != rows else 0)
        return mean("b", own)

    found = metrics_of({"b": Measure(counted, "lower")}, values, Bootstrap(0.95, 400, 2))["b"]
    assert most == 10_000
    error = values["b"].std() / np.sqrt(rows)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found.low < values["b"].mean() < found.high


def test_what_is_undefined_or_infinite_has_no_value_and_says_why() -> None:
    measures = {
        "none": Measure(lambda values: np.nan, "higher", undefined="there is one class only"),
        "unsaid": Measure(lambda values: np.nan, "higher"),
        "infinite": Measure(lambda values: np.inf, "lower"),
        "rarely": Measure(lambda values: 1.0 if not isinstance(values, Resampled) else np.nan, "lower"),
    }
    found = metrics_of(measures, values_of(20), Bootstrap(0.95, 100, 0))
    assert {name: metric.note for name, metric in found.items()} == {
        "none": "Undefined: there is one class only.",
        "unsaid": "Undefined: these rows do not define it.",
        "infinite": "Undefined: it is infinite.",
        "rarely": "No interval: undefined for too many resamples.",
    }
    assert [metric.value for metric in found.values()] == [None, None, None, 1.0]


def test_a_metric_that_few_resamples_do_not_define_has_an_interval() -> None:
    measures = {"b": Measure(lambda values: np.nan if (values["b"] == 0).sum() > 4 else mean("b", values), "lower")}
    values = values_of(50, b=np.arange(50.0))
    found = metrics_of(measures, values, Bootstrap(0.95, 500, 0))["b"]
    assert found.low is not None
    assert found.low < 24.5 < found.high


@pytest.mark.parametrize(("rows", "sessions", "what"), [(1, None, "one row"), (9, np.array(["s"] * 9), "one session")])
def test_one_row_or_one_session_has_no_interval(rows: int, sessions: Any, what: str) -> None:
    found = metrics_of(MEASURES, values_of(rows), Bootstrap(0.95, 100, 0, sessions))["b"]
    assert (found.low, found.high, found.note) == (None, None, f"No interval: {what} alone.")
    assert found.value is not None


def test_values_that_no_metric_asks_for_are_not_copied() -> None:
    class Huge:
        def __getitem__(self, places: Any) -> Any:
            raise AssertionError("nobody asks for outputs")

    metrics_of(MEASURES, values_of(10, outputs=Huge()), Bootstrap(0.95, 100, 0))


def test_a_bootstrap_that_is_stopped_ends_within_a_few_resamples() -> None:
    asked = list[int]()

    def of(values: Any) -> float:
        asked.append(len(values["weight"]))
        return mean("b", values)

    def go_on() -> None:
        if len(asked) > 50:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        metrics_of({"b": Measure(of, "lower")}, values_of(20), Bootstrap(0.95, 100_000, 1, None, go_on))
    assert len(asked) < 100
