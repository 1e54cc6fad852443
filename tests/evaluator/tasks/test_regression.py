"""Regression: metrics are scikit-learn's on all numbers, whatever shape rows have."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from sluice.data import bounds
from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.values import joined
from sluice.policy.contract import Axis
from sluice.policy.errors import BadRequest
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, subject, tensor, values_of

RNG = np.random.default_rng(8)


def task(*axes: Any) -> Any:
    own = subject(signature("serving_default", [tensor("x", None)], [tensor("y", *axes, unit="m")]))
    return task_for("regression", own, options(), sessions=False)


def puppet(answers: Any) -> Puppet:
    return Puppet(lambda inputs: {"y": answers})


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e7])
async def test_metrics_are_those_of_scikit_learn(shape: tuple[int, ...], weighted: bool, offset: float) -> None:
    right, answers = RNG.normal(3, 1, (60, *shape)) + offset, RNG.normal(3, 1, (60, *shape)) + offset
    weights = RNG.uniform(0, 3, 60) if weighted else None
    own = task(*shape)
    measured = found(own, await values_of(own, rows_of(right, weights), puppet(answers)))
    flat = np.repeat(np.ones(60) if weights is None else weights, right[0].size)
    given = right.ravel(), answers.ravel()
    assert measured == pytest.approx({
        "mae": metrics.mean_absolute_error(*given, sample_weight=flat),
        "rmse": metrics.root_mean_squared_error(*given, sample_weight=flat),
        "mse": metrics.mean_squared_error(*given, sample_weight=flat),
        "mape": metrics.mean_absolute_percentage_error(*given, sample_weight=flat),
        "smape": np.average(2 * abs(given[0] - given[1]) / (abs(given[0]) + abs(given[1])), weights=flat),
        "r2": metrics.r2_score(*given, sample_weight=flat),
    }, rel=1e-9)  # fmt: skip


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 2**16))
async def test_rows_that_differ_in_length_count_by_their_numbers(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    right, answers = ([rng.normal(size=(length, 2)) for length in lengths] for _ in range(2))
    own = task(Axis("time"), 2)
    values = await values_of(own, rows_of(right), puppet(answers))
    flat = np.concatenate(right).ravel(), np.concatenate(answers).ravel()
    assert own.measures["mae"].of(values) == pytest.approx(metrics.mean_absolute_error(*flat))
    assert own.measures["r2"].of(values) == pytest.approx(metrics.r2_score(*flat))
    parts = [await values_of(own, rows_of([row]), puppet([found])) for row, found in zip(right, answers, strict=True)]
    for name, array in joined(parts).items():
        assert np.array_equal(array, values[name], equal_nan=True), name


async def test_the_error_by_time_step_is_over_the_rows_that_have_it() -> None:
    right = [np.zeros((2, 1)), np.zeros((3, 1))]
    answers = [np.array([[1.0], [2.0]]), np.array([[3.0], [6.0], [9.0]])]
    own = task(Axis("time"), 1)
    (lines,) = own.sections(await values_of(own, rows_of(right, [1, 3]), puppet(answers)), {})
    assert lines.series == {"model": ((1.0, 2.5), (2.0, 5.0), (3.0, 9.0))}
    assert task(3).sections(await values_of(task(3), rows_of(np.ones((2, 3))), puppet(np.ones((2, 3)))), {}) == ()


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["1", "two"], "Row 4: expected a label of numbers; got 'two'"),
        ([[1.0], [1.0, 2.0]], r"Row 4: expected a label of the answer's shape, \[1\]; got \[2\]"),
        ([1.0, np.nan], "Row 4: expected a label of finite numbers; got NaN"),
        (np.array([1.0, np.inf]), "Row 4: expected a label of finite numbers"),
        ([1.0, -1e300], r"Row 4: expected a label of finite numbers, up to 1e\+38; got -1e\+300"),
        (np.array([1.0, 1e39]), r"Row 4: expected a label of finite numbers, up to 1e\+38; got 1e\+39"),
        (["1", "1_0"], "Row 4: expected a label of numbers; got '1_0'"),
        ([b"1", b"\xff"], "Row 4: expected a label of numbers"),
    ],
)
async def test_labels_that_are_no_numbers_of_the_shape_are_refused(labels: Any, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        await task(1).values(rows_of(labels, places=3), puppet(np.zeros((2, 1))))


async def test_a_label_of_several_numbers_is_told_by_its_columns() -> None:
    with pytest.raises(BadRequest, match=r"\[3\]; got \[\]. In a CSV file these are columns, label.0 to label.2."):
        await task(3).values(rows_of([1.0, 2.0]), puppet(np.zeros((2, 3))))


async def test_the_largest_numbers_with_the_largest_weights_have_finite_metrics() -> None:
    labels, weights = np.array([bounds.NUMBER, -bounds.NUMBER]), np.full(2, bounds.WEIGHT)
    values = await values_of(task(1), rows_of(labels, weights), puppet(-labels[:, np.newaxis]))
    assert all(np.isfinite(measure.of(values)) for measure in task(1).measures.values())


async def test_labels_that_are_written_as_text_are_read() -> None:
    values = await task(1).values(rows_of(["1.5", b"2"]), puppet(np.zeros((2, 1))))
    assert values["absolute_error"].tolist() == [1.5, 2.0]


async def test_what_labels_do_not_define_is_undefined() -> None:
    own = task(1)
    measured = found(own, await values_of(own, rows_of([0.0, 0.0]), puppet(np.ones((2, 1)))))
    assert np.isnan(measured["mape"])
    assert np.isnan(measured["r2"])
    assert (measured["mae"], measured["smape"]) == (1.0, 2.0)


async def test_answers_that_are_no_rows_are_refused() -> None:
    with pytest.raises(BadRequest, match="gives a row of 'y' for each row it takes; 2 were asked, 3 came"):
        await task(1).values(rows_of([0.0, 0.0]), puppet(np.ones((3, 1))))
