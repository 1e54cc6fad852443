"""Classification: metrics are scikit-learn's, whatever the model answers with and labels are written as."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.task import Task
from sluice.policy.contract import Axis, Recognition
from sluice.policy.errors import BadRequest
from sluice.policy.scores import code_logits, softmax
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, some, subject, tensor, values_of

NAMES = ("ant", "bee", "cat", "dog")
RNG = np.random.default_rng(5)
ROWS = 300
LOGITS = RNG.normal(size=(ROWS, 4)).astype(np.float32)
PLACES = np.where(RNG.random(ROWS) < 0.5, LOGITS.argmax(axis=1), RNG.integers(0, 3, ROWS))  # "dog" is rare
WEIGHTS = RNG.uniform(0, 2, ROWS)
IMAGE = tensor("x", None)


def task(*outputs: Any, **given: Any) -> Task:
    own = outputs or (tensor("y", Axis("class", 4, "ant, bee, cat, dog")),)
    return task_for(
        "classification", subject(signature("serving_default", [IMAGE], own)), options(**given), sessions=False
    )


def puppet(answers: Any = LOGITS, name: str = "y") -> Puppet:
    return Puppet(lambda inputs: {name: answers[inputs["x"]]})


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("form", ["logits", "probabilities"])
async def test_metrics_are_those_of_scikit_learn(form: str, weights: Any) -> None:
    probabilities = softmax(LOGITS)
    given = LOGITS if form == "logits" else probabilities
    own = task(top_k=2)
    rows = rows_of([NAMES[place] for place in PLACES], weights)
    measured = found(own, await values_of(own, rows, puppet(given)))
    answers, every = probabilities.argmax(axis=1), {"labels": range(4), "sample_weight": weights}
    expected = {
        "accuracy": metrics.accuracy_score(PLACES, answers, sample_weight=weights),
        "top_2": metrics.top_k_accuracy_score(PLACES, probabilities, k=2, **every),
        "balanced_accuracy": metrics.balanced_accuracy_score(PLACES, answers, sample_weight=weights),
        "macro_f1": metrics.f1_score(PLACES, answers, average="macro", sample_weight=weights),
        "log_loss": metrics.log_loss(PLACES, probabilities, **every),
        "brier": metrics.brier_score_loss(PLACES, probabilities, **every),
        "ece": slow_ece(PLACES, probabilities, np.ones(ROWS) if weights is None else weights, 15),
    }
    assert measured == pytest.approx(expected, rel=1e-9)
    assert list(measured) == list(expected)


def slow_ece(labels: Any, probabilities: Any, weights: Any, bins: int) -> float:
    gap = 0.0
    for place in range(bins):
        inside = [row for row, each in enumerate(probabilities) if place / bins < each.max() <= (place + 1) / bins]
        right = sum(weights[row] * (probabilities[row].argmax() == labels[row]) for row in inside)
        gap += abs(right - sum(weights[row] * probabilities[row].max() for row in inside))
    return gap / sum(weights)


async def test_metrics_are_the_same_in_parts() -> None:
    own, rows = task(), rows_of(PLACES)
    whole = await values_of(own, rows, puppet())
    parts = [await values_of(own, some(rows, start, start + 7), puppet()) for start in range(0, ROWS, 7)]
    for name, array in whole.items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), array), name
    assert whole["outputs"].dtype == np.float32


@pytest.mark.parametrize(
    "labels",
    [PLACES, PLACES.astype(float), [str(place) for place in PLACES], [NAMES[place].encode() for place in PLACES]],
    ids=["numbers", "floats", "digits", "bytes"],
)
async def test_labels_are_names_or_places(labels: Any) -> None:
    own = task()
    assert np.array_equal((await own.values(rows_of(labels), puppet()))["label"], PLACES)


async def test_numbers_are_names_where_classes_have_such_names() -> None:
    own = task(tensor("y", 3), classes=("3", "1", "2"))
    values = await own.values(rows_of(["1", "2", "3"]), puppet(LOGITS[:, :3]))
    assert values["label"].tolist() == [1, 2, 0]
    with pytest.raises(BadRequest, match=r"Row 7: expected a label .* 3, 1, 2; got '0'"):
        await own.values(rows_of(["0"], places=7), puppet(LOGITS[:, :3]))


async def test_a_label_outside_the_classes_is_refused_with_its_row_and_the_classes() -> None:
    with pytest.raises(BadRequest, match=r"Row 41: expected .* ant, bee, cat, dog, or a place from 0 to 3; got 'eel'"):
        await task().values(rows_of(["ant", "eel"], places=40), puppet())
    for label in (4, -1, None, 0.5):
        with pytest.raises(BadRequest, match=rf"Row 0: expected a label .*; got {label}\."):
            await task().values(rows_of([label]), puppet())


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.array([7]), r"got 7\.$"),
        (np.array([0.25], np.float32), r"got 0\.25\.$"),
        (np.array([[2]]), r"got \[2\]\. Give a label for each row, not a list: `labels.ravel\(\)`\.$"),
        (np.eye(4)[[1]], r"got \[0\.0, 1\.0, 0\.0, 0\.0\]\. Of one-hot labels, .* `argmax\(axis=-1\)`\.$"),
    ],
)
async def test_a_label_that_came_is_told_as_plain_numbers(labels: Any, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        await task().values(rows_of(labels), puppet())


async def test_a_mixture_of_logits_and_probabilities_is_refused() -> None:
    answers = softmax(LOGITS)
    answers[5] = LOGITS[5] * 3
    own = task()
    await own.prepare(rows_of(PLACES[:5]), puppet(answers))
    with pytest.raises(BadRequest, match=r"Row 5: expected probabilities, as other rows have them, in 'y'"):
        await own.values(rows_of(PLACES[5:6], places=5), puppet(answers))
    with pytest.raises(BadRequest, match="expected logits"):
        await values_of(task(), rows_of(PLACES[:10]), puppet(answers))


async def test_the_first_rows_decide_for_all_that_come_later_here_or_elsewhere() -> None:
    own, answers = task(), softmax(LOGITS)
    await own.prepare(rows_of(PLACES[:2]), puppet(LOGITS))
    elsewhere = pickle.loads(pickle.dumps(own))
    with pytest.raises(BadRequest, match="expected logits"):
        await elsewhere.values(rows_of(PLACES), puppet(answers))


async def test_logits_that_look_like_probabilities_by_chance_are_logits() -> None:
    answers = LOGITS[:, :2].copy()
    answers[3] = 0.25, 0.75
    values = await values_of(task(tensor("y", 2)), rows_of(PLACES % 2), puppet(answers))
    assert values["nll"][3] == pytest.approx(-np.log(softmax(answers[3:4]))[0, PLACES[3] % 2])


async def test_answers_that_are_not_finite_are_refused() -> None:
    answers = LOGITS.copy()
    answers[2, 1] = np.nan
    with pytest.raises(BadRequest, match=r"Row 2: expected an answer of finite numbers as 'y'; got NaN or infinity"):
        await task().values(rows_of(PLACES), puppet(answers))


async def test_probabilities_of_0_and_1_have_a_finite_loss() -> None:
    answers = np.eye(4)[[0, 1, 2]]
    own = task()
    measured = found(own, await values_of(own, rows_of([0, 1, 3]), puppet(answers)))
    assert measured["log_loss"] == pytest.approx(metrics.log_loss([0, 1, 3], answers, labels=range(4)), rel=1e-9)


async def test_of_equal_logits_the_first_is_the_answer_and_the_rest_follow_in_order() -> None:
    own = task(top_k=2)
    values = await values_of(own, rows_of([0, 1, 2]), puppet(np.zeros((3, 4))))
    assert values["predicted"].tolist() == [0, 0, 0]
    assert values["rank"].tolist() == [0, 1, 2]


RECOGNIZED = signature("serving_default", [IMAGE], [tensor("y", None), tensor("features", 9)])


async def test_a_contract_says_where_logits_are_and_what_classes_they_have() -> None:
    recognition = Recognition(RECOGNIZED, "y", NAMES[:3], other=3)
    own = task_for("classification", subject(RECOGNIZED, recognition=recognition), options(), sessions=False)
    values = await values_of(own, rows_of(["cat"] * ROWS), puppet())
    assert np.array_equal(values["predicted"], LOGITS[:, :3].argmax(axis=1))  # "other" is no class of the labels
    table, matrix, *_ = own.sections(values, {})
    assert [row[0] for row in table.rows] == [*matrix.rows] == [*NAMES[:3]]


async def test_output_codes_are_answered_by_the_nearest_code() -> None:
    codes = ((1, 1, 0, 0, 1), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1))
    units = RNG.normal(size=(ROWS, 5))
    recognition = Recognition(RECOGNIZED, "y", NAMES[:3], codes=codes)
    own = task_for("classification", subject(RECOGNIZED, recognition=recognition), options(), sessions=False)
    values = await values_of(own, rows_of(PLACES % 3), puppet(units))
    assert np.array_equal(values["predicted"], code_logits(units, codes).argmax(axis=1))
    assert values["outputs"].shape == (ROWS, 5)
    own.sections(values, {})


@pytest.mark.parametrize(
    ("outputs", "given", "sentence"),
    [
        (
            [tensor("a", 4), tensor("b", 4)],
            {},
            '2 outputs of floats .*: a, b. Name the one .*"options": {"output": "a"}',
        ),
        ([tensor("a", dtype="string")], {}, r"no output of floats .*; a is string \[batch\]\. Is the task sequences\?"),
        ([tensor("risk", 1)], {}, r"; risk is float32 \[batch, axis 1=1\]\. Is the task regression\?"),
        ([tensor("sure", dtype="bool")], {}, r"; sure is bool \[batch\]\.$"),
        ([tensor("a", 4)], {"output": "b"}, "`options.output` is an output of 'serving_default': a; got 'b'"),
        (
            [tensor("a", 4), tensor("b", dtype="string")],
            {"output": "b"},
            r"an output of floats \[rows, class\], one for each class; 'b' is string",
        ),
        ([tensor("a", 4)], {"signature": "nope"}, "a signature of puppet version 1: serving_default; got 'nope'"),
    ],
)
def test_a_judged_output_that_is_not_clear_is_refused(outputs: Any, given: Any, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        task(*outputs, **given)


async def test_a_wrong_number_of_names_is_refused() -> None:
    own = task(tensor("y", None), classes=("a", "b"))
    with pytest.raises(BadRequest, match="'y' has 4 classes; 2 are named: a, b"):
        await own.values(rows_of(PLACES), puppet())


async def test_sections_show_classes_confusion_and_reliability() -> None:
    own, rows = task(bins=5), rows_of(PLACES, WEIGHTS)
    values = await values_of(own, rows, puppet())
    table, matrix, lines, bars = own.sections(values, {})
    expected = metrics.precision_recall_fscore_support(
        PLACES, values["predicted"], labels=range(4), sample_weight=WEIGHTS, zero_division=0
    )
    assert np.array([row[2:] for row in table.rows]) == pytest.approx(np.array(expected[:3]).T)
    assert np.array(matrix.counts) == pytest.approx(
        metrics.confusion_matrix(PLACES, values["predicted"], labels=range(4), sample_weight=WEIGHTS)
    )
    total = sum(bars.series["rows"])
    gaps = [abs(y - x) for x, y in lines.series["answers"]]
    counted = [count / total for count in bars.series["rows"] if count]
    assert np.dot(gaps, counted) == pytest.approx(own.measures["ece"].of(values))


async def test_without_weight_everything_is_undefined() -> None:
    own = task()
    measured = found(own, await values_of(own, rows_of(PLACES, np.zeros(ROWS)), puppet()))
    assert all(np.isnan(value) for value in measured.values())


def test_sequences_of_pictures_are_classified_alike() -> None:
    ragged = signature("serving_default", [tensor("x", Axis("time", ragged=True), 3)], [tensor("y", 4)], "sequences")
    assert task_for("classification", subject(ragged), options(), sessions=False).judged == "outputs"
