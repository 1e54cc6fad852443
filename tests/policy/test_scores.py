"""Scores from logits, each against scipy or a slow formula that is read straight from its paper."""

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import optimize, special, stats

from sluice.policy.scores import (
    OpenMax,
    code_logits,
    codes,
    detector,
    energy,
    entropy,
    every_other,
    fit_openmax,
    fit_temperature,
    fit_weibull,
    gen,
    margin,
    max_logit,
    openmax,
    other,
    softmax,
    top_probability,
)

LOGITS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-40, 40, width=32))
TEMPERATURES = st.floats(0.1, 10)
BOOK = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1], [0, 1] * 7 + [1]]


def slow_softmax(row: list[float], temperature: float) -> list[float]:
    powers = [exp(value / temperature - max(row) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_entropy(p: list[float]) -> float:
    return -sum(each * log(each) for each in p if each)


def slow_margin(p: list[float]) -> float:
    return 1 - (sorted(p)[-1] - sorted(p)[-2]) if len(p) > 1 else 0.0


def slow_openmax(row: list[float], means: Any, weibull: Any, alpha: int) -> float:
    """Algorithm 2 of the paper, class by class."""
    order = sorted(range(len(row)), key=lambda place: -row[place])
    revised, unknown = list(row), 0.0
    for rank, place in enumerate(order[:alpha]):
        distance = sqrt(sum((a - b) ** 2 for a, b in zip(row, means[place], strict=True)))
        shape, scale = weibull[place]
        weight = 1 - (alpha - rank) / alpha * stats.weibull_min.cdf(distance, shape, scale=scale)
        revised[place] = row[place] * weight
        unknown += row[place] * (1 - weight)
    probabilities = slow_softmax([unknown, *revised], 1.0)
    return log(probabilities[0]) - log(sum(probabilities[1:]))


@given(LOGITS, TEMPERATURES)
def test_softmax_is_that_of_scipy(logits: np.ndarray, temperature: float) -> None:
    expected = special.softmax(logits.astype(np.float64) / temperature, axis=1)
    assert softmax(logits, temperature) == pytest.approx(expected, abs=1e-12)


@given(LOGITS, TEMPERATURES)
def test_scores_from_probabilities_are_those_of_the_slow_formulas(logits: np.ndarray, temperature: float) -> None:
    probabilities = [slow_softmax(row, temperature) for row in logits.astype(float).tolist()]
    for score, slow in ((top_probability, lambda p: 1 - max(p)), (entropy, slow_entropy), (margin, slow_margin)):
        assert score(logits, temperature) == pytest.approx([slow(p) for p in probabilities], abs=1e-9)


@given(LOGITS, TEMPERATURES)
def test_energy_is_the_negative_log_of_the_sum_of_powers(logits: np.ndarray, temperature: float) -> None:
    expected = -temperature * special.logsumexp(logits.astype(np.float64) / temperature, axis=1)
    assert energy(logits, temperature) == pytest.approx(expected, abs=1e-9)
    assert max_logit(logits).tolist() == [-max(row) for row in logits.astype(float).tolist()]


@given(LOGITS, st.floats(0.05, 1), st.integers(1, 8))
def test_gen_is_the_slow_formula_over_the_likeliest_classes(logits: np.ndarray, gamma: float, top: int) -> None:
    expected = []
    for row in logits.astype(float).tolist():
        p = slow_softmax(row, 1.0)
        rest = [sum(p[:place] + p[place + 1 :]) for place in range(len(p))]
        pairs = sorted(zip(p, rest, strict=True), reverse=True)[:top]
        expected.append(sum((each * other_) ** gamma for each, other_ in pairs))
    assert gen(logits, gamma, top) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("score", [top_probability, margin, gen, entropy])
def test_rows_that_are_surer_than_float64_can_say_of_one_are_told_apart(score: Callable[..., np.ndarray]) -> None:
    surer, sure = score(np.array([[90.0, 0, 0], [60.0, 0, 0]])).tolist()
    assert 0 < surer < sure


@pytest.mark.parametrize("score", [top_probability, max_logit, energy, entropy, margin, gen])
def test_a_row_between_classes_is_stranger_than_one_of_a_class(score: Callable[..., np.ndarray]) -> None:
    known, strange = score(np.array([[8.0, 0, 0], [1.0, 1, 0.5]], np.float32)).tolist()
    assert known < strange
    assert score(np.zeros((0, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize("alpha", [1, 2, 3, 9])
def test_openmax_is_the_papers_algorithm(alpha: int) -> None:
    rng = np.random.default_rng(alpha)
    means = 8 * np.eye(4) + rng.normal(size=(4, 4))
    weibull = np.stack([rng.uniform(2, 9, 4), rng.uniform(2, 9, 4)], axis=1)
    logits = rng.normal(scale=6, size=(50, 4)).astype(np.float32)
    expected = [slow_openmax(row, means, weibull, alpha) for row in logits.astype(float).tolist()]
    assert openmax(logits, OpenMax(means, weibull, alpha)) == pytest.approx(expected, abs=1e-6)


def test_openmax_calls_a_row_unknown_that_is_far_from_its_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    logits = 8 * np.eye(3)[labels] + rng.normal(size=(180, 3))
    model = fit_openmax(logits, labels)
    known, far = openmax(np.array([[8.0, 0, 0], [16.0, 14, 0]]), model)
    assert known < -3
    assert far > 3
    steps = OpenMax(model.means, np.full((3, 2), 1e4), 3)  # of which no number overflows
    assert openmax(np.array([[1e30, 0, 0], [8.0, 0, 0]]), steps) == pytest.approx([1e30, -8], abs=0.01)


def test_openmax_is_fitted_to_the_largest_distances_of_rows_that_are_answered_right() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 40)
    logits = 5 * np.eye(3)[labels] + rng.normal(size=(120, 3))
    logits[0] = [-90, 90, 0]  # answered wrong: it counts for no class
    model = fit_openmax(logits, labels, tail=10, alpha=2)
    right = logits.argmax(axis=1) == labels
    for place in range(3):
        own = logits[right & (labels == place)]
        assert model.means[place] == pytest.approx(own.mean(axis=0))
        largest = np.sort(np.linalg.norm(own - own.mean(axis=0), axis=1))[-10:]
        shape, _, scale = stats.weibull_min.fit(largest, floc=0)
        assert model.weibull[place] == pytest.approx([shape, scale], rel=1e-3)
    assert model.alpha == 2


@pytest.mark.parametrize(("rows", "tail"), [(30, 3), (100, 5), (600, 20)])
def test_openmax_takes_a_twentieth_of_a_class_s_distances_from_3_to_20(rows: int, tail: int) -> None:
    labels = np.repeat([0, 1], [rows, 600])
    logits = 5 * np.eye(2)[labels] + np.random.default_rng(2).normal(size=(len(labels), 2))
    assert fit_openmax(logits, labels).weibull == pytest.approx(fit_openmax(logits, labels, tail=tail).weibull)
    assert fit_openmax(logits, labels).weibull != pytest.approx(fit_openmax(logits, labels, tail=tail - 1).weibull)


def test_every_other_row_of_each_class_is_fitted_to() -> None:
    assert np.flatnonzero(every_other(np.array([2, 2, 0, 0, 2, 1, 0]))).tolist() == [0, 2, 4, 5, 6]


def test_openmax_wants_a_row_of_each_class_that_is_answered_right() -> None:
    with pytest.raises(ValueError, match="class 1 has none"):
        fit_openmax(np.array([[3.0, 0], [3.0, 0]]), np.array([0, 1]))


@pytest.mark.parametrize(("shape", "scale"), [(0.7, 2.0), (1.5, 1e-3), (12.0, 300.0)])
def test_a_weibull_distribution_is_the_likeliest_one(shape: float, scale: float) -> None:
    values = stats.weibull_min.rvs(shape, scale=scale, size=200, random_state=7)
    found = fit_weibull(values)
    fitted, _, fitted_scale = stats.weibull_min.fit(values, floc=0)
    assert found == pytest.approx((fitted, fitted_scale), rel=1e-3)
    likelihood = lambda pair: stats.weibull_min.logpdf(values, pair[0], scale=pair[1]).sum()
    for factor in (0.98, 1.02):
        assert likelihood(found) > likelihood((found[0] * factor, found[1]))
        assert likelihood(found) > likelihood((found[0], found[1] * factor))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_a_weibull_distribution_of_any_distances_has_a_shape_and_a_scale(values: list[float]) -> None:
    shape, scale = fit_weibull(np.array(values))
    assert 0 < shape < 1.001e4
    assert 0 < scale < np.inf


def test_other_and_detector_are_probabilities_of_being_unknown() -> None:
    logits = np.random.default_rng(2).normal(scale=5, size=(40, 4)).astype(np.float32)
    assert other(logits, 3) == pytest.approx(special.softmax(logits.astype(float), axis=1)[:, 3])
    pair = logits[:, :2]
    for known in (0, 1):
        assert detector(pair, known) == pytest.approx(special.softmax(pair.astype(float), axis=1)[:, 1 - known])
    surer, sure = detector(np.array([[80.0, 0], [60.0, 0]]), 0).tolist()
    assert 0 < surer < sure


def test_a_code_is_as_strange_as_it_is_far_from_the_nearest_class() -> None:
    logits = np.random.default_rng(3).normal(scale=4, size=(30, 15)).astype(np.float32)
    soft = special.expit(logits.astype(float))
    distances = [[sum(abs(s - b) for s, b in zip(row, code, strict=True)) for code in BOOK] for row in soft]
    assert codes(logits, BOOK) == pytest.approx([min(row) for row in distances], abs=1e-9)
    likelihoods = [
        [sum(log(s if b else 1 - s) for s, b in zip(row, code, strict=True)) for code in BOOK] for row in soft
    ]
    assert code_logits(logits, BOOK) == pytest.approx(np.array(likelihoods), abs=1e-6)


def test_a_code_of_a_class_is_not_strange_and_each_wrong_unit_makes_it_so_by_one() -> None:
    exact = 200.0 * (2 * np.array(BOOK) - 1)
    assert codes(exact, BOOK) == pytest.approx([0, 0, 0], abs=1e-12)
    assert code_logits(exact, BOOK).argmax(axis=1).tolist() == [0, 1, 2]
    exact[:, :2] *= -1
    assert codes(exact, BOOK) == pytest.approx([2, 2, 2])


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-special.log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_with_the_least_loss(sharpness: float) -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(scale=2, size=(500, 5))
    labels = np.array([rng.choice(5, p=p) for p in special.softmax(true, axis=1)])
    logits = sharpness * true
    found = fit_temperature(logits, labels)
    least = optimize.minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, labels, exp(log_t)), bounds=(-4, 4), method="bounded"
    )
    assert found == pytest.approx(exp(least.x), rel=1e-3)
    assert found == pytest.approx(sharpness, rel=0.15)


def test_a_temperature_is_within_bounds_and_one_where_every_row_is_answered_right() -> None:
    assert fit_temperature(np.array([[2.0, 0], [0, 3.0]]), np.array([0, 1])) == 1.0
    assert fit_temperature(np.array([[2.0, 0], [3.0, 0]]), np.array([1, 1])) == pytest.approx(100)
    close = np.array([[1e-3, 0]] * 100)
    assert fit_temperature(close, np.array([0] * 99 + [1])) == pytest.approx(0.01)
