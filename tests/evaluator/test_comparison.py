"""Two versions on the same rows: paired differences, exact tests, the groups that lose; and groups by themselves."""

from functools import partial
from math import comb
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sluice.evaluator.comparison import compared
from sluice.evaluator.slices import slices
from sluice.evaluator.statistics import Bootstrap
from sluice.evaluator.tasks.task import Measure
from sluice.evaluator.tasks.values import weighted_mean

RNG = np.random.default_rng(6)
BOOTSTRAP = Bootstrap(0.95, 200, 5)


def mean(name: str, values: Any) -> float:
    return weighted_mean(values["weight"], values[name])


class Puppet:
    """A task with one metric, of the value that versions are tested in."""

    def __init__(self, tested: str, better: Any) -> None:
        self.tested = tested
        self.measures = {tested: Measure(partial(mean, tested), better)}


ACCURACY, ERROR = Puppet("correct", "higher"), Puppet("error", "lower")


def versions(rows: int) -> Any:
    own, other = RNG.random((2, rows)) < np.array([[0.9], [0.8]])
    return {"correct": own, "weight": np.ones(rows)}, {"correct": other, "weight": np.ones(rows)}


def exact(fewer: int, of: int) -> float:
    """Two-sided: how probable a split of so many coins is that is as uneven, or more."""
    return min(1.0, 2 * sum(comb(of, k) for k in range(fewer + 1)) / 2**of)


def test_differences_are_paired_and_intervals_are_those_of_the_rows_differences() -> None:
    own, other = versions(300)
    found = compared(ACCURACY, 2, own, other, BOOTSTRAP)
    paired = own["correct"].astype(float) - other["correct"]
    expected = stats.bootstrap(
        (paired,), np.mean, n_resamples=200, batch=16, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    difference = found.differences["correct"]
    assert found.version == 2
    assert difference.value == pytest.approx(paired.mean())
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_right_and_wrong_answers_are_tested_by_mcnemar() -> None:
    own, other = versions(300)
    better = int((own["correct"] & ~other["correct"]).sum())
    worse = int((other["correct"] & ~own["correct"]).sum())
    found = compared(ACCURACY, 2, own, other, BOOTSTRAP)
    assert found.p_value == pytest.approx(exact(min(better, worse), better + worse))
    assert found.test == (
        f"McNemar's exact test: this version alone is right in {better} rows, the other alone in {worse}."
    )


def test_errors_are_tested_by_their_signs() -> None:
    own, other = ({"error": RNG.normal(at, 1, 40), "weight": np.ones(40)} for at in (0.0, 0.4))
    own["error"][:3] = other["error"][:3]  # which say nothing
    smaller = int((own["error"] < other["error"]).sum())
    found = compared(ERROR, 2, own, other, BOOTSTRAP)
    assert found.p_value == pytest.approx(exact(min(smaller, 37 - smaller), 37))
    assert found.test == f"Sign test: this version's error is smaller in {smaller} rows and larger in {37 - smaller}."


def test_rows_of_one_session_are_tested_as_one() -> None:
    sessions = np.repeat([*"abcdefgh"], 25)
    own, other = versions(200)
    own["correct"], other["correct"] = np.ones(200, bool), sessions != "a"
    found = compared(ACCURACY, 2, own, other, Bootstrap(0.95, 100, 0, sessions))
    assert found.p_value == 1.0
    assert found.test == "Sign test: this version's error is smaller in 1 sessions and larger in 0."


def test_versions_that_do_not_differ_have_no_p_value() -> None:
    own, _ = versions(20)
    found = compared(ACCURACY, 2, own, own, BOOTSTRAP)
    assert (found.p_value, found.test) == (None, "McNemar's exact test: the versions do not differ in any row.")
    assert found.differences["correct"].value == 0


def test_what_is_undefined_in_a_version_has_no_difference() -> None:
    task = Puppet("correct", "higher")
    task.measures["perplexity"] = Measure(lambda values: np.inf, "lower", undefined="no score")
    task.measures["auroc"] = Measure(lambda values: np.nan, "higher", undefined="one kind only")
    own, other = versions(10)
    found = compared(task, 2, own, other, BOOTSTRAP).differences
    assert found["perplexity"].value is None
    assert found["auroc"].note == "Undefined: one kind only, in a version."


@pytest.mark.parametrize(("task", "first"), [(ACCURACY, "b"), (ERROR, "a")])
def test_the_groups_that_lose_most_come_first(task: Any, first: str) -> None:
    groups = np.repeat(["a", "b"], [40, 10])
    own = {task.tested: np.repeat([1.0, 0.25], [40, 10]), "weight": np.ones(50)}
    other = {task.tested: np.full(50, 0.5), "weight": np.ones(50)}
    (table,) = compared(task, 2, own, other, BOOTSTRAP, groups).sections
    assert [row[0] for row in table.rows] == [first, "b" if first == "a" else "a"]
    assert ("b", 10, True, 0.25, 0.5, -0.25) in table.rows
    assert ("a", 40, False, 1.0, 0.5, 0.5) in table.rows


def test_groups_have_metrics_of_their_own_rows() -> None:
    groups = np.array([*"baab"] * 20 + ["c"])
    values = {"correct": RNG.random(81) < 0.5, "weight": RNG.uniform(0, 2, 81)}
    values["weight"][-1] = 0
    table = slices(ACCURACY.measures, values, groups)
    assert table.columns == ("group", "rows", "few rows", "correct")
    for (name, rows, few, found), group in zip(table.rows[:2], "ab", strict=True):
        there = groups == group
        assert (name, rows, few) == (group, 40, False)
        assert found == pytest.approx(np.average(values["correct"][there], weights=values["weight"][there]))
    assert table.rows[2] == ("c", 1, True, None)
    assert table.text == "1 of the groups have fewer than 30 rows and say little."


def test_of_very_many_groups_the_largest_are_shown() -> None:
    groups = np.array([f"g{number:03}" for number in range(150)] + ["g149"])
    table = slices(ACCURACY.measures, {"correct": np.ones(151, bool), "weight": np.ones(151)}, groups)
    assert len(table.rows) == 100
    assert table.rows[-1][:2] == ("g149", 2)
    assert table.text.startswith("The 100 largest of 150 groups. ")


def test_groups_that_are_numbers_stand_by_size() -> None:
    groups = np.array(["12", "3", "all", "24", "-1.5"])
    table = slices({}, {"weight": np.ones(5)}, groups)
    assert [row[0] for row in table.rows] == ["-1.5", "3", "12", "24", "all"]
