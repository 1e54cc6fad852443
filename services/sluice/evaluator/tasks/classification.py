"""Classification: how often the right class is answered, and how well the probabilities tell it."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sluice.data import Rows
from sluice.evaluator.document import Metric, Section
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import answered_numbers
from sluice.evaluator.tasks.classes import classes_of, places_of
from sluice.evaluator.tasks.classification_sections import bin_of, confusion_matrix, per_class, reliability
from sluice.evaluator.tasks.task import Array, Asked, Measure, Subject, Values
from sluice.evaluator.tasks.values import weighted_mean

_NO_WEIGHT = "no row has a weight"


class Classification:
    """A signature with an output of one number for each class: logits, units of an output code, or probabilities."""

    whole_sessions, stateless = False, ""
    judged, answered, tested = "outputs", "predicted", "correct"

    def __init__(self, subject: Subject, options: Options) -> None:
        self._classes = classes_of(subject, options)
        self._bins = options.bins
        self.measures: Mapping[str, Measure] = classification_measures(options)

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Whether answers are probabilities or logits, where the contract does not say."""
        if self._classes.recognition is None:
            self._classes.see(await self._answers(rows, asked))

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """label, predicted and rank (of the label, from 0) as places of classes; nll in nats, brier, confidence.

        Raises:
            BadRequest: a label is no class, or the answers are not those of a classifier.
        """
        answers = await self._answers(rows, asked)
        probabilities, logarithms = self._classes.of(answers, rows)
        labels = places_of(rows, self._classes.names(probabilities.shape[1]))
        every = np.arange(len(rows))
        predicted, own = probabilities.argmax(axis=1), logarithms[every, labels]
        squares = probabilities**2
        squares[every, labels] = (1 - probabilities[every, labels]) ** 2
        return {
            "label": labels,
            "predicted": predicted,
            "correct": predicted == labels,
            "rank": _ranks(logarithms, labels),
            "nll": 0.0 - own,
            "brier": squares.sum(axis=1),
            "confidence": probabilities[every, predicted],
            "outputs": answers.astype(np.float32),
        }

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """Each class by itself, which class is taken for which, and whether confidence is what it promises."""
        recognition = self._classes.recognition
        width = values["outputs"].shape[1] if recognition is None else len(recognition.classes)
        names = self._classes.names(width)
        counts = confusion(values, len(names))
        return (*per_class(names, counts), *confusion_matrix(names, counts), *reliability(values, self._bins))

    def notes(self, values: Values) -> Sequence[str]:
        return ()

    async def _answers(self, rows: Rows, asked: Asked) -> Array:
        name = self._classes.output.name
        column = answered_numbers(await asked.predict(rows.inputs, [name], self._classes.signature), name, rows)
        return np.stack(column) if isinstance(column, list) else column


def classification_measures(options: Options) -> Mapping[str, Measure]:
    """The metrics, with as many bins and as large a k as are asked for."""
    return {
        "accuracy": Measure(partial(_mean, "correct"), "higher", share=True, undefined=_NO_WEIGHT),
        f"top_{options.top_k}": Measure(
            partial(_top, options.top_k), "higher", share=True, undefined=_NO_WEIGHT
        ),
        "balanced_accuracy": Measure(balanced_accuracy, "higher", share=True, undefined=_NO_WEIGHT),
        "macro_f1": Measure(macro_f1, "higher", share=True, undefined=_NO_WEIGHT),
        "log_loss": Measure(partial(_mean, "nll"), "lower", unit="nats", undefined=_NO_WEIGHT),
        "brier": Measure(partial(_mean, "brier"), "lower", undefined=_NO_WEIGHT),
        "ece": Measure(partial(ece, options.bins), "lower", share=True, undefined=_NO_WEIGHT),
    }  # fmt: skip


def confusion(values: Values, classes: int) -> NDArray[np.float64]:
    """Σ weight of the rows of each class (first axis) that are taken for each class (second axis)."""
    places = values["label"] * classes + values["predicted"]
    sums: NDArray[np.float64] = np.bincount(places, values["weight"], classes * classes).astype(np.float64)
    return sums.reshape(classes, classes)


def balanced_accuracy(values: Values) -> float:
    """The mean of the recalls of the classes that there are rows of."""
    counts = confusion(values, _classes_in(values))
    rows = counts.sum(axis=1)
    there = rows > 0
    return float((counts.diagonal()[there] / rows[there]).mean()) if there.any() else np.nan


def macro_f1(values: Values) -> float:
    """The mean of F1 = 2 TP / (2 TP + FP + FN) of the classes that are right or answered anywhere."""
    counts = confusion(values, _classes_in(values))
    either = counts.sum(axis=0) + counts.sum(axis=1)
    there = either > 0
    return float((2 * counts.diagonal()[there] / either[there]).mean()) if there.any() else np.nan


def ece(bins: int, values: Values) -> float:
    """Expected calibration error: Σ of bins' weights times |accuracy - mean confidence|, over bins of equal width.

    A bin takes what is above its lower bound, and its upper bound (Guo et al. 2017, "On Calibration of Modern ...").
    """
    weights = values["weight"]
    total = weights.sum()
    if not total > 0:
        return np.nan
    gaps = np.bincount(bin_of(values["confidence"], bins), weights * (values["correct"] - values["confidence"]), bins)
    return float(np.abs(gaps).sum() / total)


def _classes_in(values: Values) -> int:
    return int(max(values["label"].max(initial=0), values["predicted"].max(initial=0))) + 1


def _mean(name: str, values: Values) -> float:
    return weighted_mean(values["weight"], values[name])


def _top(most: int, values: Values) -> float:
    return weighted_mean(values["weight"], values["rank"] < most)


def _ranks(logarithms: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes are likelier than the label; of equals the first is, as for the answer."""
    own = logarithms[np.arange(len(labels)), labels][:, np.newaxis]
    before = np.arange(logarithms.shape[1]) < labels[:, np.newaxis]
    found: NDArray[np.int64] = ((logarithms > own) | ((logarithms == own) & before)).sum(axis=1)
    return found
