"""Open set: scikit-learn's areas, and the rates that calibrated answers give."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from sluice.client import NotCalibrated, RecognizedRow
from sluice.evaluator.tasks import task_for
from sluice.policy.contract import Recognition
from sluice.policy.errors import BadRequest
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, subject, tensor, values_of

RNG = np.random.default_rng(11)
ROWS, CLASSES = 200, ("A", "B", "C")
SIGNATURE = signature("serving_default", [tensor("x", None)], [tensor("logits", 3)])
KNOWN = np.arange(ROWS) < 120
GROUPS = ["known"] * 120 + ["near"] * 50 + ["Far"] * 30
PLACES = np.where(KNOWN, RNG.integers(0, 3, ROWS), -1)
LABELS = [CLASSES[place] if place >= 0 else "" for place in PLACES]
LOGITS = RNG.normal(size=(ROWS, 3)) + 3 * np.eye(4)[PLACES][:, :3]
SCORES = RNG.normal(size=ROWS) + 1.5 * ~KNOWN
WEIGHTS = RNG.uniform(0.1, 2, ROWS)


def task(**given: Any) -> Any:
    own = subject(SIGNATURE, recognition=Recognition(SIGNATURE, "logits", CLASSES))
    return task_for("open_set", own, options(**given), sessions=False)


def answer(row: int, threshold: float = 1.0, p_value: float = 0.5) -> RecognizedRow:
    closest = CLASSES[LOGITS[row].argmax()]
    known = SCORES[row] <= threshold
    chosen = tuple(name for name, logit in zip(CLASSES, LOGITS[row], strict=True) if logit > 0)
    return RecognizedRow(
        closest if known else None, bool(known), closest, SCORES[row], threshold, p_value, None, (), chosen
    )  # fmt: skip


def puppet(**given: Any) -> Puppet:
    return Puppet(
        lambda inputs: {"logits": LOGITS[inputs["x"]]}, lambda inputs: [answer(row) for row in inputs["x"]], **given
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
async def test_areas_are_those_of_scikit_learn_and_rates_are_shares(weights: Any) -> None:
    own, ones = task(), np.ones(ROWS) if weights is None else weights
    measured = found(own, await values_of(own, rows_of(LABELS, weights, groups=GROUPS), puppet()))
    near, far = (KNOWN | (np.array(GROUPS) == group) for group in ("near", "Far"))

    def area(rows: Any) -> float:
        return metrics.roc_auc_score(~KNOWN[rows], SCORES[rows], sample_weight=ones[rows])

    right, rejected = LOGITS.argmax(axis=1) == PLACES, SCORES > 1
    inside = np.array([PLACES[row] >= 0 and LOGITS[row, PLACES[row]] > 0 for row in range(ROWS)])
    known, unknown = (ones * KNOWN)[:, np.newaxis], ones * ~KNOWN
    below = SCORES[:, np.newaxis] < SCORES
    expected = {
        "auroc": area(KNOWN | ~KNOWN),
        "auroc_near": area(near),
        "auroc_far": area(far),
        "oscr": (known * right[:, np.newaxis] * below * unknown).sum() / known.sum() / unknown.sum(),
        "unknown_accepted_at_95_known_accepted": rate(SCORES, KNOWN, ones),
        "known_rejected_at_95_unknown_rejected": rate(-SCORES, ~KNOWN, ones),
        "closed_accuracy": metrics.accuracy_score(PLACES[KNOWN], LOGITS.argmax(1)[KNOWN], sample_weight=ones[KNOWN]),
        "known_rejected": np.average(rejected[KNOWN], weights=ones[KNOWN]),
        "unknown_rejected": np.average(rejected[~KNOWN], weights=ones[~KNOWN]),
        "coverage": np.average(inside[KNOWN], weights=ones[KNOWN]),
    }
    assert measured == pytest.approx(expected, rel=1e-9)


def rate(scores: Any, own: Any, weights: Any) -> float:
    """The share of the others up to the least score up to which 95 % of the own lie."""
    total = weights[own].sum()
    threshold = min(s for s in scores[own] if weights[own & (scores <= s)].sum() >= 0.95 * total - 1e-9)
    return float(weights[~own & (scores <= threshold)].sum() / weights[~own].sum())


async def test_it_asks_for_the_method_and_the_level_of_the_options() -> None:
    asked = puppet()
    await task(method="knn", recognition_level=0.1).values(rows_of(LABELS, groups=GROUPS), asked)
    assert [each[0] for each in asked.asked] == ["recognize"]
    assert asked.asked[0][2] == ("knn", 0.1)


async def test_flips_are_of_classes_and_of_unknown() -> None:
    values = await task().values(rows_of(LABELS, groups=GROUPS), puppet())
    assert np.array_equal(values["answer"], np.where(SCORES > 1, -1, LOGITS.argmax(axis=1)))
    assert np.array_equal(values["right"], values["answer"] == PLACES)


async def test_without_a_calibration_the_greatest_logit_tells_and_rates_are_undefined() -> None:
    own, asked = task(), puppet()
    asked.recognized = None
    values = await values_of(own, rows_of(LABELS, groups=GROUPS), asked)
    measured = found(own, values)
    assert measured["auroc"] == pytest.approx(metrics.roc_auc_score(~KNOWN, -LOGITS.max(axis=1)))
    assert measured["closed_accuracy"] == pytest.approx(np.mean(LOGITS.argmax(1)[KNOWN] == PLACES[KNOWN]))
    assert all(np.isnan(measured[name]) for name in ("known_rejected", "unknown_rejected", "coverage"))
    assert "no calibration" in own.notes(values)[0]
    assert task().notes(await values_of(own, rows_of(LABELS), puppet())) == ()
    own.sections(values, {})


async def test_where_thresholds_differ_p_values_tell() -> None:
    p_values = RNG.uniform(size=ROWS)
    asked = Puppet(
        lambda inputs: {},
        lambda inputs: [answer(row, threshold=row % 2, p_value=p_values[row]) for row in inputs["x"]],
    )
    own = task()
    measured = found(own, await values_of(own, rows_of(LABELS), asked))
    assert measured["auroc"] == pytest.approx(metrics.roc_auc_score(~KNOWN, -p_values))


@pytest.mark.parametrize(("labels", "undefined"), [(["A", "B"], "oscr"), (["", ""], "closed_accuracy")])
async def test_with_one_kind_of_rows_what_takes_both_is_undefined_and_says_so(labels: Any, undefined: str) -> None:
    own = task()
    values = await values_of(own, rows_of(labels), puppet())
    assert np.isnan(found(own, values)["auroc"])
    assert np.isnan(found(own, values)[undefined])
    assert "one kind only" in own.measures["auroc"].undefined
    own.sections(values, {})


async def test_what_a_rate_lacks_is_told_by_itself() -> None:
    own, asked = task(), puppet()

    async def missing(labels: Any, name: str) -> str:
        return own.measures[name].missing(await values_of(own, rows_of(labels), asked))

    assert await missing(["A", "B"], "unknown_rejected") == "there are no rows of no class, whose label is empty"
    assert await missing(["", ""], "coverage") == await missing([""], "known_rejected") == "there are no known rows"
    asked.recognized = lambda inputs: [answer(row)._replace(set=None) for row in inputs["x"]]
    assert await missing(["A", "B"], "coverage") == "the calibration gives no sets of classes"
    asked.recognized = None
    for name in ("known_rejected", "unknown_rejected", "coverage"):
        assert await missing(["A", ""], name) == "the gateway has no calibration for this model version"


async def test_rows_without_weight_are_of_no_kind() -> None:
    own = task()
    measured = found(own, await values_of(own, rows_of(LABELS, KNOWN.astype(float), groups=GROUPS), puppet()))
    undefined = {name for name, value in measured.items() if np.isnan(value)}
    assert undefined == own.measures.keys() - {"closed_accuracy", "known_rejected", "coverage"}


async def test_a_strange_label_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"Row 1: expected a label that is one of the classes A, B, C"):
        await task().values(rows_of(["", "D"]), puppet())


def test_a_model_that_does_not_say_its_classes_is_refused() -> None:
    with pytest.raises(BadRequest, match="takes a model whose contract has `recognition`"):
        task_for("open_set", subject(SIGNATURE), options(), sessions=False)


async def test_the_histogram_shows_each_kind_in_percent() -> None:
    own = task()
    (bars,) = own.sections(await values_of(own, rows_of(LABELS, groups=GROUPS), puppet()), {})
    assert list(bars.series) == ["known", "near unknown", "far unknown"]
    assert [sum(each) for each in bars.series.values()] == pytest.approx([100] * 3)


async def test_whether_there_is_a_calibration_is_decided_once_for_all_rows() -> None:
    own, asked = task(), puppet()
    asked.recognized = None
    await own.prepare(rows_of(LABELS[:5]), asked)
    calibrated_meanwhile = await own.values(rows_of(LABELS, groups=GROUPS), puppet())
    assert np.isnan(calibrated_meanwhile["p_value"]).all()
    await own.prepare(rows_of(LABELS[:5]), puppet())
    with pytest.raises(NotCalibrated):
        await own.values(rows_of(LABELS, groups=GROUPS), asked)
