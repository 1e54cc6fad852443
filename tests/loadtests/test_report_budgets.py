"""Budgets of load tests: read strictly, with units, and judged."""

from pathlib import Path

import pytest

from loadtests.locust import scenarios
from loadtests.locust.options import BUDGETS
from loadtests.report.budgets import SECTIONS, Budget, BudgetsRefused, Verdict, judge, read_budgets, sentence, table
from loadtests.report.quantities import quantity, written

SCENARIOS = ("step over HTTP", "rows over gRPC")
GOOD = """
loadtest:
  all: {errors: 0.1 %, wrong_answers: 0}
  step over HTTP:
    p99: 50 ms
    rate: 100 per second
soak:
  all: {refused: 2 %}
"""


@pytest.fixture
def read(tmp_path: Path):
    def reads(text: str, section: str = "loadtest"):
        file = tmp_path / "budgets.yaml"
        file.write_text(text, encoding="utf-8")
        return read_budgets(file, section, SCENARIOS)

    return reads


@pytest.mark.parametrize("section", SECTIONS)
def test_our_own_budgets_are_right_and_allow_no_wrong_answer(section: str) -> None:
    budgets = read_budgets(Path(BUDGETS), section, scenarios.SCENARIOS)
    assert Budget("all", "wrong_answers", 0) in budgets


def test_a_run_is_held_to_the_budgets_of_its_section(read) -> None:
    assert {(each.scope, each.figure): each.limit for each in read(GOOD)} == {
        ("all", "errors"): pytest.approx(0.001), ("all", "wrong_answers"): 0,
        ("step over HTTP", "p99"): 0.05, ("step over HTTP", "rate"): 100,
    }  # fmt: skip
    assert [str(each) for each in read(GOOD, "soak")] == ["refused ≤ 2 %"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loadtests: {}", "no section is called 'loadtests'; there are loadtest, soak"),
        ("loadtest: {step: {p99: 1 s}}", "loadtest: no scenario is called 'step'; there are all, step over HTTP"),
        ("loadtest: {all: {p98: 1 s}}", "loadtest, all: no figure is called 'p98'; there are p50, p90, p95, p99,"),
        ("loadtest: {all: {p99: 50}}", "loadtest, all, p99: expected a duration such as 50 ms or 2 s, got '50'"),
        ("soak: {all: {errors: 1 ms}}", "soak, all, errors: expected a share such as 0.1 %, got '1 ms'"),
        ("loadtest: {all: {wrong_answers: true}}", "expected a number such as 3, got 'True'"),
        ("loadtest: {all: {errors: 1 %, errors: 2 %}}", "'errors' stands twice"),
        ("loadtest: {all: 3}", "loadtest, all: expected a figure for each key (p50, "),
        ("loadtest: {all: {[1]: 3}}", "expected YAML"),
        ("loadtest: {", "expected YAML"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused_with_what_there_is(read, text: str, said: str) -> None:
    with pytest.raises(BudgetsRefused, match=r"budgets\.yaml: ") as refused:
        read(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BudgetsRefused, match=r"none.yaml: cannot be read \(No such file"):
        read_budgets(tmp_path / "none.yaml", "loadtest", SCENARIOS)


@pytest.mark.parametrize(
    ("p99", "rate", "kept"),
    [(0.05, 100.0, (True, True)), (0.051, 99.9, (False, False)), (0.001, 5e4, (True, True))],
)
def test_latencies_are_bounded_from_above_and_rates_from_below(read, p99: float, rate: float, kept) -> None:
    figures = {"all": {"errors": 0, "wrong_answers": 0}, "step over HTTP": {"p99": p99, "rate": rate}}
    verdicts = judge(read(GOOD), figures)
    assert tuple(each.kept for each in verdicts) == (True, True, *kept)


def test_a_scenario_of_which_nothing_was_measured_has_not_kept_its_budget(read) -> None:
    verdicts = judge(read(GOOD), {"all": {"errors": 0, "wrong_answers": 0}})
    assert [each.kept for each in verdicts] == [True, True, False, False]
    assert "2 of 4 budgets broken: step over HTTP: p99 ≤ 50 ms, found nothing measured;" in sentence(verdicts)


def test_a_scenario_that_was_left_out_is_not_judged(read) -> None:
    verdicts = judge(read(GOOD), {"all": {"errors": 0, "wrong_answers": 0}}, left_out={"step over HTTP"})
    assert sentence(verdicts) == "All 2 budgets kept."


def test_broken_budgets_stand_first_in_the_table(read) -> None:
    figures = {"all": {"errors": 0, "wrong_answers": 0}, "step over HTTP": {"p99": 0.051, "rate": 100}}
    rows = table(judge(read(GOOD), figures)).rows
    assert [(row[0], str(row[2]).split()[0]) for row in rows] == [
        ("✗", "p99"), ("✓", "errors"), ("✓", "wrong"), ("✓", "rate")
    ]  # fmt: skip


def test_a_broken_budget_is_told_with_what_was_found(read) -> None:
    verdict = Verdict(read(GOOD)[0], 0.0234)
    assert str(verdict) == "all: errors ≤ 0.1 %, found 2.34 %"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("50 ms", "duration", 0.05), ("2s", "duration", 2), ("1.5 min", "duration", 90), ("0.7%", "share", 0.007),
        ("1,200 per  second", "rate", 1200), ("20/s", "rate", 20), (".5 ms", "duration", 0.0005), ("3", "count", 3),
    ],
)  # fmt: skip
def test_a_quantity_is_a_number_and_a_unit(text: str, kind, value: float) -> None:
    assert quantity(text, kind) == value
    assert quantity(written(value, kind), kind) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "ms", "-1 ms", "1 m s", "nan ms", "1e3 ms", "1 %", None, "inf s"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 50 ms or 2 s, got "):
        quantity(text, "duration")
