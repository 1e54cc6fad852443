"""The open-set tables: figures of known scores, the choice of the default, agreement, the page."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import comb

from loadtests.openset import page
from loadtests.openset.bars import bars, bound, too_many
from loadtests.openset.bars import markdown as bars_markdown
from loadtests.openset.methods import (
    CALIBRATION,
    FAR,
    NEAR,
    OUTLIERS,
    TEMPERED,
    TEST,
    TRAIN,
    Scored,
    _agreement,
    _of_logits,
)
from loadtests.openset.table import BASELINE, CHOSEN_BY, HEADINGS, KNOWNS, REJECTED, chosen, markdown, measured
from sluice.policy import scores


def scored(method: str = "knn", **parts: list[float]) -> Scored:
    given = {
        CALIBRATION: np.linspace(0, 1, 99),
        OUTLIERS: np.array([2.0]),
        TEST: np.linspace(0, 1, 100),
        NEAR: np.array([0.5, 2.0]),
        FAR: np.array([3.0]),
    }
    changed = {part: np.array(values) for part, values in parts.items()}
    return Scored(method, given | changed, np.arange(100) % 10 > 0, 2.5)


def test_figures_of_scores_that_can_be_counted():
    found = measured(scored())
    assert {*found} == {*HEADINGS, CHOSEN_BY, KNOWNS}
    assert found["closed_set_accuracy"] == pytest.approx(0.9)
    assert found["auroc_near"] == pytest.approx(0.75)
    assert found["auroc_far"] == 1
    assert found["known_rejected_at_95_unknown_rejected"] == pytest.approx(0.5)
    assert found["unknown_accepted_at_95_known_accepted"] == pytest.approx(0.5)
    assert found["microseconds"] == 2.5


@pytest.mark.parametrize(("strange", "rejected"), [([0.94, 0.955, 0.96, 2.0], 0.5), ([0.1, 0.2], 0)])
def test_the_share_rejected_at_a_level_is_conformal(strange, rejected):
    """Of 99 calibration scores from 0 to 1, four are as large as 0.96, and (1 + 4) / 100 is the level."""
    right = np.ones(len(strange), bool)
    found = measured(Scored("knn", scored(test=strange).parts, right, 0.0))
    assert found["known_rejected_at_level_5"] == rejected


def test_the_default_is_chosen_by_the_calibration_whatever_the_test_says():
    good, bad = measured(scored()), measured(scored(calibration_outliers=[0.1], near=[9.0]))
    assert bad["auroc_near"] > good["auroc_near"]
    assert chosen({"bad": [bad, bad], "good": [good, good]}) == "good"


def test_agreement_takes_the_stranger_of_both_by_their_own_calibrations():
    first, second = scored(), scored(calibration=list(np.linspace(0, 1000, 99)), near=[1000.0, 0.0])
    found = _agreement("both", first, second)
    assert found.parts[NEAR][0] == pytest.approx(500 / (0.95 * 1000 - 500))
    assert found.parts[NEAR][1] == pytest.approx(1.5 / 0.45)
    assert found.microseconds == 5


def test_what_is_fitted_to_calibration_pictures_is_compared_with_the_others():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(90, 3))
    answers = {part: {"logits": logits} for part in (TRAIN, CALIBRATION, OUTLIERS, TEST, NEAR, FAR)}
    data = SimpleNamespace(calibration=SimpleNamespace(labels=labels))
    found = {each.method: each for each in _of_logits(answers, data, np.ones(90, bool))}
    fitted_to, rest = np.arange(90) % 2 == 0, np.arange(90) % 2 == 1
    temperature = scores.fit_temperature(logits[fitted_to], labels[fitted_to])
    weibull = scores.fit_openmax(logits[fitted_to], labels[fitted_to])
    assert temperature != pytest.approx(1, abs=0.05)
    for part, rows in ((CALIBRATION, logits[rest]), (NEAR, logits)):
        assert found[TEMPERED].parts[part] == pytest.approx(scores.top_probability(rows, temperature))
        assert found["openmax"].parts[part] == pytest.approx(scores.openmax(rows, weibull))
    assert {len(each.parts[CALIBRATION]) for each in found.values() if each.method not in (TEMPERED, "openmax")} == {90}


def test_the_page_s_table_has_a_line_for_each_method_and_the_default_in_bold():
    one = measured(scored())
    lines = markdown({"energy": [one | {CHOSEN_BY: 0.1}], "knn": [one, one | {"auroc_far": 0.9}]}).splitlines()
    assert len(lines) == 4
    assert lines[0].count("|") == lines[3].count("|") == len(HEADINGS) + 2
    assert lines[2].startswith("| energy | 0.900 |")
    assert lines[3].startswith("| **knn** | 0.900 ± 0.000 | 0.750 ± 0.000 | 0.950 ± 0.071 |")


def reached(**figures: float) -> dict[str, float]:
    """A seed in which every bar holds, but for what `figures` change."""
    return measured(scored()) | {
        "closed_set_accuracy": 0.99,
        "auroc_near": 0.985,
        "auroc_far": 0.995,
        REJECTED: 0.05,
        KNOWNS: 600,
        **figures,
    }


BASE = reached(auroc_near=0.9, auroc_calibration=0.1)


def test_bars_hold_up_to_what_is_asked_by_the_median_of_the_seeds():
    found = bars("glyphs", {BASELINE: [BASE] * 3, "knn": [reached(), reached(auroc_near=0.9999), reached()]})
    assert [bar.holds for bar in found] == [True] * 7
    assert all(bar.title.startswith("glyphs: ") for bar in found)


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"auroc_near": 0.984}, [0, 1]),
        ({"auroc_far": 0.99}, [2]),
        ({"closed_set_accuracy": 0.98}, [4]),
        ({REJECTED: 0.081}, [6]),
    ],
)
def test_a_bar_that_is_missed_says_so(figures, missed):
    runs = {BASELINE: [BASE], "knn": [reached(**figures)]}
    assert [place for place, bar in enumerate(bars("glyphs", runs)) if not bar.holds] == missed


def test_the_default_has_to_beat_the_top_probability_in_every_seed():
    as_good = reached(auroc_near=0.99, auroc_calibration=0.1)
    beaten = bars("glyphs", {BASELINE: [BASE, as_good], "knn": [reached(), reached(auroc_near=0.99)]})[5]
    assert beaten.reached is not None
    assert (beaten.reached.median, beaten.holds) == (1, False)


def test_the_bound_is_what_a_true_level_exceeds_once_in_a_thousand_times():
    counts = np.arange(601)
    chances = comb(600, counts) * 0.05**counts * 0.95 ** (600 - counts)
    most = round(600 * bound(600))
    assert chances[most + 1 :].sum() <= 0.001 < chances[most:].sum()


def test_who_rejects_too_many_is_told_by_method_and_seed():
    runs = {BASELINE: [BASE, BASE], "knn": [reached(**{REJECTED: bound(600)}), reached(**{REJECTED: 0.1})]}
    assert too_many(runs) == ["knn, seed 2: 10.0 % (at most 8.0 %)"]
    lines = bars_markdown("glyphs", runs).splitlines()
    assert len(lines) == 2 + 7 + 2
    assert lines[8].endswith("| ≤ 0 | 1 | 1 … 1 | **no** |")
    assert lines[-1] == "Too many knowns: knn, seed 2: 10.0 % (at most 8.0 %)."


def test_a_table_replaces_the_one_before_on_its_page():
    begin, end = "<!-- generated by make openset: digits -->", "<!-- end of digits -->"
    written = page.replaced(f"before\n{begin}\n\nold\n\n{end}\nafter", "digits", "new")
    assert written == f"before\n{begin}\n\nnew\n\n{end}\nafter"
    with pytest.raises(ValueError, match="once each"):
        page.replaced("nothing", "digits", "new")


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_the_documentation_has_a_place_for_each_data_set(name):
    assert page.replaced(page.PAGE.read_text(encoding="utf-8"), name, "new")
