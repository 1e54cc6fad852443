"""The drift of p-values: the distance is scipy's of two samples, and the critical one is rarely exceeded by chance."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sluice.policy.drift import Drift
from sluice.policy.recognition import Calibrated


def drift_of(calibration: np.ndarray, today: np.ndarray, window: int = 1000) -> Drift:
    drift = Drift(len(calibration), window)
    drift.observe(Calibrated(np.sort(calibration)).p_values(today))
    return drift


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.floats(-2, 2))
def test_the_distance_is_that_of_two_samples(seed: int, rows: int, count: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    calibration, today = rng.normal(size=rows), rng.normal(shift, size=count)
    with warnings.catch_warnings(action="ignore"):  # scipy warns of the p-value, which is not asked for
        theirs = stats.ks_2samp(calibration, today).statistic
    assert drift_of(calibration, today).distance == pytest.approx(theirs)


def test_nothing_is_said_of_an_empty_window() -> None:
    drift = Drift(100)
    assert (len(drift), drift.distance, drift.critical()) == (0, 0.0, 1.0)


def test_only_the_latest_count() -> None:
    rng = np.random.default_rng(0)
    drift = Drift(500, window=200)
    calibrated = Calibrated(np.sort(rng.normal(size=500)))
    for _ in range(10):
        drift.observe(calibrated.p_values(rng.normal(4, size=40)))
    assert drift.distance > 0.9 > drift.critical()
    drift.observe(calibrated.p_values(rng.normal(size=200)))
    assert len(drift) == 200
    assert drift.distance < drift.critical()


@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
@pytest.mark.parametrize(("rows", "count"), [(300, 1000), (1000, 200)])
def test_the_critical_distance_is_where_scipys_asymptotic_test_has_the_level(
    level: float, rows: int, count: int
) -> None:
    drift = Drift(rows, count)
    drift.observe(np.full(count, 0.5))
    scaled = drift.critical(level) * np.sqrt(rows * count / (rows + count))
    assert stats.kstwobign.sf(scaled) == pytest.approx(level, rel=1e-3)


def test_it_is_rarely_exceeded_while_nothing_changes() -> None:
    rng = np.random.default_rng(1)
    exceeded = sum(
        drift.distance > drift.critical(0.05)
        for drift in (drift_of(rng.normal(size=200), rng.normal(size=300)) for _ in range(400))
    )
    assert stats.binom.cdf(exceeded - 1, 400, 0.05) < 0.999


def test_with_so_few_rows_that_anything_is_chance_it_cannot_be_exceeded() -> None:
    assert drift_of(np.arange(3.0), np.array([9.0])).critical(0.001) == 1.0
