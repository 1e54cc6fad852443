"""How well scores tell known from unknown: against scikit-learn, scipy, and formulas that go row by row."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sluice.policy.measures import accepted_at, auroc, measured, oscr, roc

SCORES = st.lists(st.integers(-6, 6), min_size=1, max_size=30).map(lambda values: np.array(values, float))


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_which_the_unknown_row_is_stranger(
    known: np.ndarray, unknown: np.ndarray
) -> None:
    pairs = [(u > k) + (u == k) / 2 for k in known for u in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    statistic = stats.mannwhitneyu(unknown, known).statistic
    assert auroc(known, unknown) == pytest.approx(statistic / (len(known) * len(unknown)))
    assert auroc(known, unknown) == pytest.approx(1 - auroc(unknown, known))


@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_roc_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=80).round(1), rng.normal(1, size=50).round(1)
    truth, scores = np.repeat([0, 1], [80, 50]), np.concatenate([known, unknown])
    assert auroc(known, unknown) == pytest.approx(metrics.roc_auc_score(truth, scores))
    rejected, caught, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert np.array(roc(known, unknown)) == pytest.approx(np.array([rejected, caught]))


@given(SCORES, SCORES)
def test_the_area_under_the_roc_is_auroc(known: np.ndarray, unknown: np.ndarray) -> None:
    rejected, caught = roc(known, unknown)
    assert integrate.trapezoid(caught, rejected) == pytest.approx(auroc(known, unknown))


@given(SCORES, SCORES)
def test_what_is_accepted_is_counted_at_the_least_threshold_that_accepts_the_share(
    own: np.ndarray, others: np.ndarray
) -> None:
    threshold = min(each for each in own if (own <= each).mean() >= 0.95 - 1e-12)
    assert accepted_at(own, others) == pytest.approx(np.mean([each <= threshold for each in others]))


def test_the_two_error_rates_at_95_percent_are_two() -> None:
    known = np.arange(100.0)
    unknown = np.concatenate([np.full(10, 50.0), np.full(90, 200.0)])
    found = measured(known, np.ones(100, bool), unknown)
    assert found.unknown_accepted_at_95_known_accepted == pytest.approx(0.1)  # threshold 94
    assert found.known_rejected_at_95_unknown_rejected == pytest.approx(0.5)  # threshold 50, which is rejected
    assert found.auroc == found.oscr == pytest.approx(0.9 + 0.1 * 0.505)


@given(SCORES, SCORES, st.integers(0, 2**30))
def test_oscr_is_the_area_under_right_answers_over_accepted_unknowns(
    known: np.ndarray, unknown: np.ndarray, bits: int
) -> None:
    right = np.array([bits >> place & 1 for place in range(len(known))], bool)
    thresholds = [-np.inf, *np.unique(np.concatenate([known, unknown]))]
    classified = [(right & (known <= threshold)).mean() for threshold in thresholds]
    accepted = [(unknown <= threshold).mean() for threshold in thresholds]
    assert oscr(known, right, unknown) == pytest.approx(integrate.trapezoid(classified, accepted))


def test_scores_that_tell_everything_and_nothing() -> None:
    low, high = np.arange(3.0), np.arange(3.0) + 5
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    assert oscr(low, np.zeros(3, bool), high) == 0.0


@given(SCORES, SCORES, st.integers(0, 2**30))
def test_a_row_of_weight_3_counts_as_three_rows(known: np.ndarray, unknown: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random(len(known)) < 0.7
    ours, theirs = (np.append(rng.integers(0, 4, len(each) - 1), 1) for each in (known, unknown))
    weighted = measured(known, right, unknown, ours.astype(float), theirs.astype(float))
    repeated = measured(np.repeat(known, ours), np.repeat(right, ours), np.repeat(unknown, theirs))
    assert astuple(weighted) == pytest.approx(astuple(repeated))
