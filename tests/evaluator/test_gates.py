"""Conditions under which an evaluation fails: a grammar, and what is judged by it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.evaluator.document import Comparison, Metric
from sluice.evaluator.gates import check_metric, parse, version_compared
from sluice.policy.errors import BadRequest
from tests.size import size

NAMES = ("accuracy", "balanced_accuracy", "mae", "top_3")


def metric(value: float | None, note: str = "") -> Metric:
    return Metric(value=value, better="higher", note=note)


def judged(text: str, value: float | None = 0.9, difference: float | None = None, version: int = 3) -> Any:
    (condition,) = parse([text], NAMES)
    comparison = Comparison(
        version=version, differences={condition.metric: metric(difference)}, test="", p_value=None
    )  # fmt: skip
    return condition.judged({condition.metric: metric(value)}, None if difference is None else comparison)


@pytest.mark.parametrize(
    ("text", "value", "fails"),
    [
        ("accuracy < 0.97", 0.96, True),
        ("accuracy < 0.97", 0.97, False),
        ("accuracy < 97%", 0.9699, True),
        ("accuracy<97 %", 0.97, False),
        ("accuracy <= 97pt", 0.97, True),
        ("mae > 1.5e-1", 0.16, True),
        ("mae >= .15", 0.15, True),
        ("mae > 15.", 15.0, False),
        (" top_3 == 1 ", 1.0, True),
        ("mae == -0.5", 0.5, False),
        ("accuracy <= 0.3", 0.1 + 0.2, True),  # which is a little more
    ],
)
def test_a_metric_is_compared_with_a_number(text: str, value: float, fails: bool) -> None:
    gate = judged(text, value)
    assert gate.failed is fails
    assert gate.text == text


@pytest.mark.parametrize(
    ("text", "value", "difference", "fails"),
    [
        ("accuracy drops > 0.5pt vs 3", 0.95, -0.006, True),
        ("accuracy drops > 0.5pt vs 3", 0.965, 0.965 - 0.97, False),  # by half a point, exactly
        ("accuracy drops >= 0.5pt vs 3", 0.965, 0.965 - 0.97, True),
        ("accuracy drops > 0.5pt vs 3", 0.95, 0.02, False),
        ("mae rises > 10% vs 3", 1.2, 0.2, True),  # 20 % more than 1
        ("mae rises > 10% vs 3", 10.9, 0.9, False),  # 9 % more than 10
        ("mae rises > 10% vs 3", 11.0, 1.05, True),  # more than 10 % of 9.95, and less of 11
        ("mae rises > 0.1 vs 3", 10.9, 0.9, True),
        ("mae rises > 0.1 vs 3", 10.9, -0.9, False),
        ("accuracy drops >= 0 vs 3", 0.9, 0.0, True),
    ],
)
def test_a_change_is_compared_with_a_number(text: str, value: float, difference: float, fails: bool) -> None:
    assert judged(text, value, difference).failed is fails


def test_a_gate_says_what_was_found() -> None:
    assert judged("accuracy < 0.97", 0.123456789).found == "accuracy is 0.123457"
    assert judged("accuracy drops > 1pt vs 3", 0.9, -0.02).found == "accuracy changes by -0.02 against version 3"


def test_what_cannot_be_told_fails_with_the_reason() -> None:
    (condition,) = parse(["mae > 2"], NAMES)
    gate = condition.judged({"mae": metric(None, "Undefined: no row has a weight.")}, None)
    assert (gate.failed, gate.found) == (True, "Undefined: no row has a weight.")
    assert judged("mae rises > 2 vs 3").failed
    assert judged("mae rises > 2 vs 3", 1.0, 0.0, version=4).found == "no comparison with version 3"
    assert judged("mae rises > 2 vs 3", None, 0.0).failed


@pytest.mark.parametrize(
    "text",
    [
        "", "accuracy", "accuracy <", "accuracy < x", "accuracy < 0.9 0.8", "0.9 > accuracy", "accuracy != 0.9",
        "accuracy < nan", "accuracy < inf", "accuracy < 1e999", "accuracy < 0.9%%", "accuracy < 0.9 % pt",
        "accuracy drops 0.5pt vs 3", "accuracy drops < 0.5pt vs 3", "accuracy drops > 0.5pt", "accuracy falls > 1 vs 3",
        "accuracy drops > 1 vs x", "accuracy drops > 1 vs -3", "accuracy drops > 1 vs 3.5", "accuracy drops > 1 as 3",
        "accuracy < 0.9; import os", "__import__('os') < 1", "accuracy < 1 or mae > 2", "accuracy < ٣", "mae.real < 1",
        "accuracy < 0.9\x00", "accuracy < --1", "accuracy < 1e", "accuracy < 0x1", "accuracy < 1_0",
        "accuracy drops > 1 vs 9223372036854775808", f"accuracy drops > 1 vs {'9' * 5000}",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="A condition of `fail_if` is `METRIC < NUMBER`"):
        parse([text], NAMES)


@settings(derandomize=True, database=None, deadline=None, max_examples=size(50, 2000))
@given(st.text("accury <>=%.0123456789dropsvt-e_+", max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        (condition,) = parse([text], NAMES)
    except BadRequest:
        return
    assert condition.metric in text


def test_an_unknown_metric_is_refused_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(
        BadRequest, match=r"accuracy, balanced_accuracy, mae, top_3; got 'acuracy'; did you mean 'accuracy'"
    ):
        parse(["acuracy < 1"], NAMES)
    with pytest.raises(BadRequest, match=r"got 'zzz'\.$"):
        check_metric("zzz", NAMES)


def test_conditions_name_the_version_to_compare_with() -> None:
    both = parse(["mae > 1", "mae rises > 1 vs 3"], NAMES)
    assert version_compared(both, None) == 3
    assert version_compared(both, 3) == 3
    assert version_compared(both[:1], None) is None
    assert version_compared(both[:1], 0) == 0
    with pytest.raises(BadRequest, match="compares with one version; `compare_to` and `fail_if` name 2, 3"):
        version_compared(both, 2)
