"""Open-set recognition: how well known rows are told from those of no class, by score and by the calibrated rule.

Rows whose label is empty are of no class; their group tells "near" unknowns, which look like known rows, from "far".
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.client import NotCalibrated
from sluice.data import Rows
from sluice.evaluator.document import Bars, Metric, Section
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import answered_numbers
from sluice.evaluator.tasks.classes import places_of
from sluice.evaluator.tasks.task import Array, Asked, Measure, Subject, Values
from sluice.evaluator.tasks.values import weighted_mean
from sluice.policy.contract import Recognition
from sluice.policy.errors import BadRequest
from sluice.policy.measures import accepted_at, auroc, oscr
from sluice.policy.recognition import check_logits, class_logits
from sluice.policy.scores import max_logit

KNOWN, UNKNOWN, NEAR, FAR = range(4)  # what a row is
ANY = -1  # kind of unknown
_NO_CLASS = -1
_BINS = 40
_ONE_KIND = "it takes known rows and rows of no class, whose label is empty; there is one kind only"
_NO_NEAR, _NO_FAR = (f"it takes known rows and rows of no class whose group is {kind!r}" for kind in ("near", "far"))
_NO_KNOWN, _NO_UNKNOWN = "there are no known rows", "there are no rows of no class, whose label is empty"
_NO_RULE = "the gateway has no calibration for this model version"
_NO_SETS = "the calibration gives no sets of classes"
_NOT_CALIBRATED = (
    "The gateway has no calibration for this model version: the score is the greatest logit, negative, nothing is "
    "rejected, and rates and coverage are undefined. Calibrate with `sluice calibrate`."
)


class OpenSet:
    """A classifier whose contract tells its classes, asked by `:recognize`, or else for its logits."""

    whole_sessions, stateless = False, ""
    judged, answered, tested = "score_output", "answer", "right"

    def __init__(self, subject: Subject, options: Options) -> None:
        recognition = subject.contract.recognition if subject.contract else None
        if subject.contract is None or recognition is None:
            raise BadRequest(
                f"The task open_set takes a model whose contract has `recognition`; that of {subject.model} version "
                f"{subject.version} has none. Say what its logits mean (docs/recognition.md), or take classification."
            )
        self._recognition: Recognition = recognition
        self._signature = next(
            name for name, each in subject.contract.signatures.items() if each is recognition.signature
        )
        self._method, self._level = options.method, options.recognition_level
        self._calibrated = True
        self.measures: Mapping[str, Measure] = MEASURES

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Whether the gateway has a calibration."""
        try:
            await asked.recognize(rows.inputs, self._method, self._level)
            self._calibrated = True
        except NotCalibrated:
            self._calibrated = False

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """kind, label and class as places, -1 for none; score, larger = stranger, and what the calibration says of it.

        Without a calibration, p_value, threshold, rejected and covered are NaN.
        """
        labels = places_of(rows, self._recognition.classes, none=True)
        found = await (self._recognized(rows, asked, labels) if self._calibrated else self._by_logits(rows, asked))
        known = labels >= 0
        rejected = found["rejected"] == 1
        return {
            "kind": _kinds(labels, rows.groups),
            "label": labels,
            **found,
            "class_right": known & (found["class"] == labels),
            "right": np.where(known, ~rejected & (found["class"] == labels), rejected),
            "answer": np.where(rejected, _NO_CLASS, found["class"]),
            "score_output": found["score"].astype(np.float32),
        }

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """The scores of known and unknown rows."""
        scores = strangeness(values)
        least, greatest = np.percentile(scores, (0.5, 99.5))
        edges = np.linspace(least, greatest if greatest > least else least + 1, _BINS + 1)
        kinds = {"known": KNOWN, "unknown": UNKNOWN, "near unknown": NEAR, "far unknown": FAR}
        series = {}
        for name, kind in kinds.items():
            there = values["kind"] == kind
            counts, _ = np.histogram(
                np.clip(scores[there], edges[0], edges[-1]), edges, weights=values["weight"][there]
            )
            if counts.sum() > 0:
                series[name] = tuple((100 * counts / counts.sum()).tolist())
        middles = tuple(f"{middle:.4g}" for middle in (edges[:-1] + edges[1:]) / 2)
        text = "Larger scores are stranger. The outermost bins hold all that lie beyond."
        return (Bars(title="Scores", text=text, x="score", y="% of rows", names=middles, series=series),)

    def notes(self, values: Values) -> Sequence[str]:
        if np.isnan(values["p_value"]).all():
            return (_NOT_CALIBRATED,)
        return ()

    async def _recognized(self, rows: Rows, asked: Asked, labels: NDArray[np.int64]) -> dict[str, Array]:
        answers = await asked.recognize(rows.inputs, self._method, self._level)
        classes = {name: place for place, name in enumerate(self._recognition.classes)}
        names = [*classes, None]
        return {
            "score": np.array([row.score for row in answers], np.float64),
            "threshold": np.array([row.threshold for row in answers], np.float64),
            "p_value": np.array([row.p_value for row in answers], np.float64),
            "class": np.array([classes[row.closed_set_label] for row in answers], np.int64),
            "rejected": np.array([not row.known for row in answers], np.float64),
            "covered": np.array(
                [np.nan if label < 0 or row.set is None else names[label] in row.set
                 for label, row in zip(labels.tolist(), answers, strict=True)], np.float64
            ),
        }  # fmt: skip

    async def _by_logits(self, rows: Rows, asked: Asked) -> dict[str, Array]:
        output = self._recognition.logits
        logits = np.asarray(answered_numbers(await asked.predict(rows.inputs, [output], self._signature), output, rows))
        check_logits(self._recognition, logits)
        known = class_logits(self._recognition, logits)
        unsaid = {name: np.full(len(rows), np.nan) for name in ("threshold", "p_value", "rejected", "covered")}
        return {**unsaid, "score": max_logit(known), "class": known.argmax(axis=1)}


def strangeness(values: Values) -> Array:
    """What known and unknown rows are told by: the score, or -p where thresholds differ, as scores then are no scale.

    They differ by class, or where two methods must agree.
    """
    thresholds = values["threshold"]
    one = np.isnan(thresholds).all() or (thresholds == thresholds[:1]).all()
    return values["score"] if one else -values["p_value"]


def _kinds(labels: NDArray[np.int64], groups: Sequence[str] | None) -> NDArray[np.int64]:
    named = {"near": NEAR, "far": FAR}
    found = [named.get(group.strip().lower(), UNKNOWN) for group in groups] if groups else [UNKNOWN] * len(labels)
    return np.where(labels >= 0, KNOWN, np.array(found, np.int64))


def _auroc(kind: int, values: Values) -> float:
    known, unknown = _weighing(values, KNOWN), _weighing(values, kind)
    return auroc(known.scores, unknown.scores, known.weights, unknown.weights) if known and unknown else np.nan


def _oscr(values: Values) -> float:
    known, unknown = _weighing(values, KNOWN), _weighing(values, ANY)
    if not (known and unknown):
        return np.nan
    return oscr(known.scores, known.right, unknown.scores, known.weights, unknown.weights)


def _unknown_accepted(values: Values) -> float:
    known, unknown = _weighing(values, KNOWN), _weighing(values, ANY)
    if not (known and unknown):
        return np.nan
    return accepted_at(known.scores, unknown.scores, own_weights=known.weights, others_weights=unknown.weights)


def _known_rejected(values: Values) -> float:
    known, unknown = _weighing(values, KNOWN), _weighing(values, ANY)
    if not (known and unknown):
        return np.nan
    return accepted_at(-unknown.scores, -known.scores, own_weights=unknown.weights, others_weights=known.weights)


def _share(name: str, kind: int, values: Values) -> float:
    there = _of_kind(values, kind)
    return weighted_mean(values["weight"][there], values[name][there])


def _no_rate(kind: int, values: Values) -> str:
    """Why the calibrated rule has no rate on rows of a kind."""
    if np.isnan(values["p_value"]).all():
        return _NO_RULE
    if not _weighing(values, kind):
        return _NO_KNOWN if kind == KNOWN else _NO_UNKNOWN
    return _NO_SETS


class _Weighing(NamedTuple):
    """The rows of a kind that have a weight."""

    scores: Array
    weights: Array
    right: Array

    def __bool__(self) -> bool:
        return len(self.scores) > 0


def _weighing(values: Values, kind: int) -> _Weighing:
    there = _of_kind(values, kind) & (values["weight"] > 0)
    return _Weighing(strangeness(values)[there], values["weight"][there], values["class_right"][there])


def _of_kind(values: Values, kind: int) -> NDArray[np.bool_]:
    return np.asarray(values["kind"] != KNOWN if kind == ANY else values["kind"] == kind, bool)


def _measures() -> Mapping[str, Measure]:
    higher, lower = (partial(Measure, better=better, share=True) for better in ("higher", "lower"))
    return {
        "auroc": higher(partial(_auroc, ANY), undefined=_ONE_KIND),
        "auroc_near": higher(partial(_auroc, NEAR), undefined=_NO_NEAR),
        "auroc_far": higher(partial(_auroc, FAR), undefined=_NO_FAR),
        "oscr": higher(_oscr, undefined=_ONE_KIND),
        "unknown_accepted_at_95_known_accepted": lower(_unknown_accepted, undefined=_ONE_KIND),
        "known_rejected_at_95_unknown_rejected": lower(_known_rejected, undefined=_ONE_KIND),
        "closed_accuracy": higher(partial(_share, "class_right", KNOWN), undefined=_NO_KNOWN),
        "known_rejected": lower(partial(_share, "rejected", KNOWN), undefined=partial(_no_rate, KNOWN)),
        "unknown_rejected": higher(partial(_share, "rejected", ANY), undefined=partial(_no_rate, ANY)),
        "coverage": higher(partial(_share, "covered", KNOWN), undefined=partial(_no_rate, KNOWN)),
    }


MEASURES = _measures()
