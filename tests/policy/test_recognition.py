"""Decisions: what is rejected and why, and that knowns are rejected as seldom as the level says."""

import re
from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats

from sluice.policy.contract import Recognition
from sluice.policy.errors import BackendError, BadRequest
from sluice.policy.recognition import (
    Calibrated,
    Calibration,
    Recognized,
    check_options,
    class_logits,
    decide,
    methods_of,
    parts_of,
    score_of,
    threshold_of,
)
from sluice.policy.scores import LOGITS_METHODS

from .recognizers import BOOK, CLASSES, CODES, DETECTED, OTHER, PLAIN, calibration_of, rows_of

SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=60).map(lambda values: np.sort(np.array(values, float)))
LEVELS = st.floats(0.001, 0.999)


def slow_p_value(known: np.ndarray, score: float) -> Fraction:
    return Fraction(1 + sum(each >= score for each in known.tolist()), len(known) + 1)


def animals(seed: int, count: int = 400, *methods: str, by_class: bool = False) -> Calibration:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    logits, own = rows_of(rng, labels)
    return calibration_of(PLAIN, methods or (*LOGITS_METHODS, "knn", "vim"), logits, own, labels, by_class=by_class)


CALIBRATION = animals(0)
LOGITS = np.array([[9.0, 0, 0], [0, 9, 0], [0, 0, 1]], np.float32)
OWN = {"knn": np.array([0.1, 99, 0.1], np.float32), "vim": np.array([0.1, 99, 0.2], np.float32)}


def check(recognition: Recognition = PLAIN, calibration: Calibration = CALIBRATION, method: str = "knn",
          level: float = 0.05, top_k: int = 3, *, sets: bool = False) -> None:  # fmt: skip
    check_options(recognition, calibration, method, level, top_k, sets=sets)


@given(SCORES, st.lists(st.integers(-25, 25), max_size=10))
def test_p_values_count_the_calibrations_scores_that_are_as_large(known: np.ndarray, scores: list[int]) -> None:
    found = Calibrated(known).p_values(np.array(scores, float))
    assert found == pytest.approx([float(slow_p_value(known, score)) for score in scores])


@given(SCORES, LEVELS, st.integers(-25, 25))
def test_a_score_is_above_the_threshold_where_its_p_value_is_within_the_level(
    known: np.ndarray, level: float, score: int
) -> None:
    if 1 / (len(known) + 1) > level:
        with pytest.raises(BadRequest, match=rf"there are {len(known)}\.") as refused:
            Calibrated(known).threshold(level)
        needed = refused.value.details["needed"]
        assert needed > len(known)
        assert 1 / (needed + 1) <= level < 1 / needed
    else:
        threshold = Calibrated(known).threshold(level)
        assert threshold in known
        assert (score > threshold) == (float(slow_p_value(known, score)) <= level)


@pytest.mark.parametrize(("rows", "level", "rejected"), [(19, 0.05, 1), (99, 0.29, 29), (99, 0.07, 7), (9, 0.7, 7)])
def test_a_level_that_binary_numbers_do_not_hold_rejects_as_many_as_it_says(
    rows: int, level: float, rejected: int
) -> None:
    known = np.arange(rows, dtype=float)
    assert Calibrated(known).threshold(level) == rows - rejected


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_knowns_are_rejected_as_seldom_as_the_level_says(level: float) -> None:
    """P(reject) = floor(level (n + 1)) / (n + 1) over calibration and row: a binomial count over fresh pairs."""
    rng = np.random.default_rng(5)
    scores = rng.exponential(size=(4000, 100))  # row by row: 99 of a calibration, and one more
    rejected = sum(row[-1] > Calibrated(np.sort(row[:-1])).threshold(level) for row in scores)
    assert stats.binomtest(rejected, 4000, level).pvalue > 0.001


@pytest.mark.parametrize("method", [*LOGITS_METHODS[:-1], "knn", "vim", "knn+energy", "entropy+vim"])
@pytest.mark.parametrize("by_class", [False, True])
def test_no_method_rejects_more_knowns_than_its_level(method: str, by_class: bool) -> None:
    rejected = rows = 0
    for seed in range(20):
        calibration = animals(seed, 300, *LOGITS_METHODS[:-1], "knn", "vim", by_class=by_class)
        rng = np.random.default_rng(1000 + seed)
        logits, own = rows_of(rng, rng.integers(0, 3, 200))
        answers = decide(PLAIN, calibration, method, 0.1, logits, own)
        rejected += sum(not answer.known for answer in answers)
        rows += len(answers)
    assert stats.binom.sf(rejected - 1, rows, 0.1) > 0.001
    assert rejected > 0.02 * rows


def test_each_class_has_its_own_threshold() -> None:
    calibrated = Calibrated(np.arange(30.0), {"cat": np.arange(10.0), "dog": np.arange(20.0), "owl": np.arange(30.0)})
    thresholds = [calibrated.threshold(0.1, label) for label in CLASSES]
    assert thresholds == [9.0, 18.0, 27.0]
    assert calibrated.threshold(0.1) == 27.0
    found = calibrated.p_values(np.array([9.0, 9.0, 9.0, 50.0]), ["cat", "dog", "owl", "cat"])
    assert found == pytest.approx([2 / 11, 12 / 21, 22 / 31, 1 / 11])
    with pytest.raises(BadRequest, match=r"takes 19 calibration rows or more of each class; there are 10"):
        calibrated.threshold(0.05, "cat")


def test_a_row_is_compared_with_the_rows_of_the_class_that_the_model_answers() -> None:
    calibration = animals(3, 400, "max_logit", by_class=True)
    calibration.methods["max_logit"].by_class["dog"][:] = -20.0
    cat, dog, owl = decide(PLAIN, calibration, "max_logit", 0.05, LOGITS + 3 * np.eye(3, dtype=np.float32), {})
    assert (cat.label, dog.label, owl.label) == ("cat", None, "owl")
    assert dog.threshold == -20.0
    assert dog.p_value == pytest.approx(1 / (1 + len(calibration.methods["max_logit"].by_class["dog"])))
    assert threshold_of(calibration, "max_logit", 0.05) is None


def test_a_row_is_a_class_or_unknown_and_says_why() -> None:
    known, strange, weak = decide(PLAIN, CALIBRATION, "knn", 0.05, LOGITS, OWN, top_k=2)
    threshold = CALIBRATION.methods["knn"].threshold(0.05)
    probabilities = special.softmax(LOGITS[0].astype(float) / CALIBRATION.temperature)
    assert known == Recognized(
        label="cat",
        known=True,
        closed_set_label="cat",
        score=pytest.approx(0.1),
        threshold=threshold,
        p_value=CALIBRATION.methods["knn"].p_values(np.array([0.1], np.float32))[0],
        reason=None,
        candidates=(("cat", pytest.approx(probabilities[0])), ("dog", pytest.approx(probabilities[1]))),
        own_p_values=(known.p_value,),
    )
    assert (strange.label, strange.known, strange.closed_set_label, strange.reason) == (None, False, "dog", "score")
    assert strange.score == 99 > strange.threshold == threshold
    assert strange.p_value == pytest.approx(1 / 401)
    assert (weak.label, weak.reason) == ("owl", None)
    assert threshold_of(CALIBRATION, "knn", 0.05) == threshold


def test_a_row_at_the_threshold_is_known_and_the_next_number_is_not() -> None:
    threshold = CALIBRATION.methods["knn"].threshold(0.05)
    own = {"knn": np.array([threshold, np.nextafter(threshold, 99), 0.0])}
    assert [each.known for each in decide(PLAIN, CALIBRATION, "knn", 0.05, LOGITS, own)] == [True, False, True]


@pytest.mark.parametrize("method", LOGITS_METHODS)
def test_every_method_of_logits_rejects_a_row_between_the_classes(method: str) -> None:
    known, unsure = decide(PLAIN, CALIBRATION, method, 0.05, np.array([[9.0, 0, 0], [0.2, 0.1, 0.2]]), {})
    if method == "openmax":  # which also wants it far from the means: these logits are farther than any known row's
        unsure = decide(PLAIN, CALIBRATION, method, 0.05, np.array([[30.0, 29.0, 0.0]]), {})[0]
    assert (known.label, unsure.label, unsure.reason) == ("cat", None, "score")
    assert unsure.p_value <= 0.05 < known.p_value


def test_two_methods_accept_a_row_only_if_both_do() -> None:
    both = {"knn": np.array([0.1, 99, 99]), "vim": np.array([0.1, 0.1, 99])}
    accepted, disputed, rejected = decide(PLAIN, CALIBRATION, "knn+vim", 0.05, LOGITS, both)
    assert [each.reason for each in (accepted, disputed, rejected)] == [None, "disagreement", "score"]
    assert (disputed.score, disputed.threshold) == (99, CALIBRATION.methods["knn"].threshold(0.025))
    assert disputed.p_value == pytest.approx(2 / 401)
    assert accepted.p_value <= 1.0
    assert threshold_of(CALIBRATION, "knn+vim", 0.05) is None


def test_each_of_two_methods_has_p_values_of_its_own() -> None:
    both = {"knn": np.array([0.1, 99, 0.3]), "vim": np.array([0.2, 0.1, 99])}
    for method in ("knn+vim", "vim+knn"):
        found = decide(PLAIN, CALIBRATION, method, 0.05, LOGITS, both)
        for place, part in enumerate(method.split("+")):
            alone = decide(PLAIN, CALIBRATION, part, 0.05, LOGITS, both)
            assert [each.own_p_values[place] for each in found] == [each.p_value for each in alone]


def test_a_p_value_of_two_methods_is_at_most_one() -> None:
    least = {"knn": np.full(3, -1.0), "vim": np.full(3, -1.0)}
    assert [each.p_value for each in decide(PLAIN, CALIBRATION, "knn+vim", 0.05, LOGITS, least)] == [1.0] * 3


def test_the_other_class_is_a_reason_and_no_answer() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 100)
    logits = np.concatenate([rows_of(rng, labels)[0], rng.normal(-4, 1, (100, 1))], axis=1)
    calibration = calibration_of(OTHER, ("other", "energy"), logits, {}, labels)
    known, unknown = decide(OTHER, calibration, "other", 0.05, np.array([[9.0, 0, 0, -4], [1, 2, 0, 7]]), {})
    assert (known.label, known.reason) == ("cat", None)
    assert (unknown.label, unknown.closed_set_label, unknown.reason) == (None, "dog", "other_class")
    assert unknown.score == pytest.approx(special.softmax([1.0, 2, 0, 7])[3])
    assert [label for label, _ in unknown.candidates] == ["dog", "cat", "owl"]
    assert sum(probability for _, probability in unknown.candidates) == pytest.approx(1)


def test_unknown_rows_land_on_codes_that_are_no_class() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 100)
    signs = 2.0 * np.array(BOOK) - 1
    logits = 4 * signs[labels] + rng.normal(size=(100, 15))
    calibrated = Calibrated(np.sort(score_of(CODES, "codes", logits, {}, 1.0, None)))
    calibration = Calibration("animals", 1, "", 0.05, 100, "", "codes", 1.0, {"codes": calibrated})
    lost = 4 * signs[0]
    lost[:4] *= -1
    known, nowhere, weak = decide(CODES, calibration, "codes", 0.05, np.stack([4 * signs[1], lost, signs[2] / 9]), {})
    assert (known.label, known.reason) == ("dog", None)
    assert (nowhere.label, nowhere.closed_set_label, nowhere.reason) == (None, "cat", "no_code")
    assert (weak.label, weak.closed_set_label, weak.reason) == (None, "owl", "score")
    assert class_logits(CODES, logits).argmax(axis=1).tolist() == labels.tolist()


def test_a_detector_in_front_decides_by_its_own_score() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 100)
    logits, own = rows_of(rng, labels)
    calibration = calibration_of(DETECTED, ("detector",), logits, own, labels)
    found = decide(DETECTED, calibration, "detector", 0.05, LOGITS, {"detector": np.array([0.1, 99, 0.2])})
    assert [each.reason for each in found] == [None, "detector", None]


def test_a_known_rows_class_is_in_its_set_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(9)
    missed = sizes = 0
    for _ in range(2000):
        labels = rng.integers(0, 3, 60)
        logits, _ = rows_of(rng, labels, strength=2.0)
        p = special.softmax(logits.astype(float), axis=1)
        known = np.sort(1 - p[np.arange(59), labels[:59]])
        calibrated = {"max_logit": Calibrated(np.zeros(59))}
        calibration = Calibration("a", 1, "", 0.1, 59, "", "max_logit", 1.0, calibrated, set_scores=known)
        [answer] = decide(PLAIN, calibration, "max_logit", 0.1, logits[59:], {}, sets=True)
        assert answer.set == tuple(
            label for place, label in enumerate(CLASSES) if float(slow_p_value(known, 1 - p[59, place])) > 0.1
        )
        missed += CLASSES[labels[59]] not in answer.set
        sizes += len(answer.set)
    assert stats.binomtest(missed, 2000, 0.1).pvalue > 0.001
    assert sizes > 2000  # some rows cannot be told apart


def test_a_class_at_the_bound_is_in_the_set() -> None:
    bound = 1 - special.softmax(np.zeros(3))
    even = Calibration("a", 1, "", 0.1, 9, "", "gen", 1.0, {"gen": Calibrated(np.full(9, 9.0))}, set_scores=bound)
    assert decide(PLAIN, even, "gen", 0.3, np.zeros((1, 3)), {}, sets=True)[0].set == CLASSES


def test_a_set_may_be_empty_and_is_not_given_unasked() -> None:
    sure = Calibration("a", 1, "", 0.1, 9, "", "gen", 1.0, {"gen": Calibrated(np.full(9, 9.0))}, set_scores=np.zeros(9))
    [answer] = decide(PLAIN, sure, "gen", 0.1, np.array([[1.0, 1.0, 0]]), {}, sets=True)
    assert (answer.label, answer.set) == ("cat", ())
    assert decide(PLAIN, sure, "gen", 0.1, np.array([[1.0, 1.0, 0]]), {})[0].set is None


def test_no_rows_have_no_answers() -> None:
    assert decide(PLAIN, CALIBRATION, "energy", 0.05, np.zeros((0, 3)), {}) == []


def test_a_model_offers_what_its_contract_has() -> None:
    assert methods_of(PLAIN) == (*LOGITS_METHODS, "knn", "vim")
    assert methods_of(OTHER) == (*LOGITS_METHODS, "other", "knn", "vim")
    assert methods_of(CODES) == (*LOGITS_METHODS[:-1], "codes", "knn", "vim")  # without OpenMax
    assert methods_of(DETECTED) == (*LOGITS_METHODS, "detector", "knn", "vim")
    assert parts_of("knn+energy") == ("knn", "energy")


@pytest.mark.parametrize("method", ["odin", "", "knn+", "knn+knn", "knn+vim+gen", "other", "codes", "detector"])
def test_a_method_that_the_model_does_not_offer_is_refused(method: str) -> None:
    with pytest.raises(BadRequest, match=r'"method" is one of top_probability.*; got ') as refused:
        check(method=method)
    assert repr(method) in refused.value.message


def test_a_method_without_calibration_scores_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"has no scores of 'vim'; it has knn\..*--method vim"):
        check(calibration=animals(1, 100, "knn"), method="knn+vim")


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 5.0, float("nan")])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    with pytest.raises(BadRequest, match='"level" is the share'):
        check(level=level)


def test_options_are_within_bounds() -> None:
    check()
    check(method="knn+energy", sets=True)
    with pytest.raises(BadRequest, match='"top_k" is 1 or more; got 0'):
        check(top_k=0)


@pytest.mark.parametrize("level", [1e-12, 1e-300, 5e-324])
def test_the_smallest_levels_are_refused_with_a_number_that_can_be_written(level) -> None:
    with pytest.raises(BadRequest, match="calibration rows or more") as raised:
        Calibrated(np.arange(10.0)).threshold(level)
    assert raised.value.details["needed"] == 999_999_999


@pytest.mark.parametrize("rows", [3, 30, 31])
def test_the_level_that_two_methods_are_advised_of_is_enough_for_both(rows: int) -> None:
    few = Calibrated(np.arange(float(rows)))
    calibration = replace(CALIBRATION, methods={"knn": few, "vim": few})
    advised = ceil(20_000 / (rows + 1)) / 10_000
    said = f"level 0.01 of 2 methods that must agree takes 199 .*; there are {rows}. Ask for a level of {advised:g} or"
    with pytest.raises(BadRequest, match=said):
        check_options(PLAIN, calibration, "knn+vim", 0.01, 3, sets=False)
    check_options(PLAIN, calibration, "knn+vim", advised, 3, sets=False)


def test_where_no_level_is_low_enough_for_the_rows_more_are_asked_for() -> None:
    with pytest.raises(BadRequest, match=r"there are 1\. Calibrate with more rows\."):
        Calibrated(np.zeros(1)).threshold(0.5, methods=2)


def test_too_few_rows_for_the_level_are_refused_with_how_many_it_takes() -> None:
    said = r"level 0.002 takes 499 calibration rows or more; there are 400.*a level of 0\.0025 or more"
    with pytest.raises(BadRequest, match=said):
        check(level=0.002)
    check(level=0.0025)
    with pytest.raises(
        BadRequest, match=r"level 0.004 of 2 methods that must agree takes 499"
    ):  # half the level for each of two
        check(method="knn+vim", level=0.004)
    with pytest.raises(BadRequest, match=r"of each class"):
        check(calibration=animals(2, 60, "knn", by_class=True), level=0.02)


@given(st.integers(1, 5000))
def test_the_level_that_a_refusal_advises_is_enough(rows: int) -> None:
    calibrated = Calibrated(np.arange(float(rows)))
    with pytest.raises(BadRequest) as raised:
        calibrated.threshold(1e-6)
    [advised] = re.findall(r"a level of (\S+) or more", raised.value.message)
    calibrated.threshold(float(advised))


@given(st.integers(2, 1999), st.sampled_from([1, 2]))
@example(49, 1)
def test_the_rows_that_a_refusal_names_are_enough_and_one_less_is_not(share: int, methods: int) -> None:
    def threshold(rows: int) -> float:
        return Calibrated(np.arange(float(rows))).threshold(1 / share, methods=methods)

    with pytest.raises(BadRequest) as raised:
        threshold(0)
    needed = raised.value.details["needed"]
    threshold(needed)
    with pytest.raises(BadRequest, match=f"takes {needed} calibration rows"):
        threshold(needed - 1)


def test_sets_need_a_calibration_that_knows_of_them() -> None:
    without = Calibration("animals", 2, "", 0.05, 20, "", "knn", 1.0, {"knn": Calibrated(np.arange(20.0))})
    with pytest.raises(BadRequest, match="animals version 2 knows nothing of sets"):
        check(calibration=without, sets=True)


@pytest.mark.parametrize(
    ("logits", "own", "sentence"),
    [
        (LOGITS[:, :2], OWN, r"'logits' of shape \[batch, 3\]; \[3, 2\] came"),
        (LOGITS[0], OWN, r"\[3\] came"),
        (LOGITS * np.nan, OWN, "'logits' that are not finite"),
        (LOGITS, {}, r"\[3\] scores of 'knn'; none came"),
        (LOGITS, {"knn": np.zeros((3, 1))}, r"\[3\] scores of 'knn'; \[3, 1\] came"),
        (LOGITS, {"knn": np.array([0, np.inf, 0])}, "scores of 'knn' that are not finite"),
    ],
)
def test_what_the_model_does_not_answer_as_promised_is_refused(
    logits: np.ndarray, own: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(BackendError, match=sentence):
        decide(PLAIN, CALIBRATION, "knn", 0.05, logits, own)
