"""Decides whether a row is one of a classifier's classes or unknown, from its score and a calibration.

It does not know how the model is called, nor where the calibration lies. By conformal prediction, a row that is like
those of the calibration is called unknown with a probability of the level at most.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sluice.policy.scores as own
from sluice.policy.contract import Recognition
from sluice.policy.errors import BackendError, BadRequest

Array = NDArray[Any]
Reason = Literal["score", "other_class", "no_code", "detector", "disagreement"]

_LEAST_LEVEL = 1e-9  # no calibration has rows enough for it, so that it says enough of those below
_DIGITS = 10_000  # to which a level that is advised is rounded, up, so that it is enough
AGREEMENT = "+"  # between two methods: a row is known if both accept it
_PLAIN = {"max_logit": own.max_logit, "energy": own.energy, "gen": own.gen}
_TEMPERED = {"top_probability": own.top_probability, "entropy": own.entropy, "margin": own.margin}
_REASONS: Mapping[str, Reason] = {"other": "other_class", "detector": "detector"}


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The scores of held-out known rows by one method: float64 `[n]`, rising.

    by_class: by class, those of the rows for which the model answered it; then each class has its own threshold.
    """

    scores: Array
    by_class: Mapping[str, Array] | None = None

    def of(self, label: str) -> Array:
        """The scores that a row is compared with for which the model answers the class `label`."""
        return self.scores if self.by_class is None else self.by_class[label]

    def p_values(self, scores: Array, labels: Sequence[str] = ()) -> Array:
        """(1 + how many calibration scores are `scores` or more) / (n + 1), float64 `[batch]`.

        For rows that are exchangeable with the calibration's, P(p <= level) <= level (Vovk, Gammerman & Shafer 2005,
        "Algorithmic Learning in a Random World", chapter 2; by class, chapter 4, with the answered class as category).
        labels: the classes that the model answers, of use where there are thresholds by class.
        """
        if self.by_class is None:
            return _p_values(self.scores, scores)
        found = np.empty(len(scores))
        names = np.array(labels)
        for label in set(labels):
            rows = names == label
            found[rows] = _p_values(self.of(label), scores[rows])
        return found

    def thresholds(self, level: float, labels: Sequence[str]) -> list[float]:
        """The `threshold` of each row, by the class that the model answers.

        Raises:
            BadRequest: there are too few calibration scores for this level.
        """
        if self.by_class is None:
            return [self.threshold(level)] * len(labels)
        by_class = {label: self.threshold(level, label) for label in set(labels)}
        return [by_class[label] for label in labels]

    def threshold(self, level: float, label: str | None = None, methods: int = 1) -> float:
        """The largest score that is still known at the level, of the class `label` where there are thresholds by class.

        methods: how many must agree; each has its part of the level.

        Raises:
            BadRequest: there are too few calibration scores for this level.
        """
        known = self.scores if label is None else self.of(label)
        rows = len(known) + 1
        # As many of the calibration's scores as this may be as large as an accepted one: the ranks whose p is too low.
        place = bisect_right(range(1, rows + 1), level / methods, key=lambda rank: rank / rows)
        if not place:
            needed, least = _needed(max(level, _LEAST_LEVEL) / methods), least_level(len(known), methods)
            raise BadRequest(
                f"The level {level:g}{'' if methods == 1 else f' of {methods} methods that must agree'} takes {needed} "
                f"calibration rows or more{'' if self.by_class is None else ' of each class'}; there are {len(known)}. "
                + (f"Ask for a level of {least:g} or more, or calibrate" if least < 1 else "Calibrate")
                + " with more rows.",
                needed=needed, rows=len(known),
            )  # fmt: skip
        return float(known[-place])


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is known of one version's scores on held-out known rows.

    `made_at` is the date in ISO 8601; `level` the share of knowns that may be rejected where a request does not say;
    `rows` counts the known rows and `checksum` is that of their data, SHA-256. `set_scores` are 1 - the probability of
    a row's own class, rising, float64 `[n]`. `unknown` tells what each method reached on unknown rows; nothing uses it.
    """

    model: str
    version: int
    made_at: str
    level: float
    rows: int
    checksum: str
    default_method: str
    temperature: float
    methods: Mapping[str, Calibrated]
    openmax: own.OpenMax | None = None
    set_scores: Array | None = None
    unknown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Recognized(NamedTuple):
    """The answer for one row; `label` is None where it is unknown, and then `reason` says why.

    `closed_set_label` is the class that the model would answer if it had to. `score` is larger the stranger, unknown
    above `threshold`. Of two methods that must agree, both are those of the one that is less sure, and `p_value` is
    twice its own, at most 1. `candidates` are the likeliest classes with probabilities. `set` are the classes that
    cannot be excluded at the level, whether the row is known or not. `own_p_values` are those of each method by itself,
    in the order of `parts_of`; clients do not get them.
    """

    label: str | None
    known: bool
    closed_set_label: str
    score: float
    threshold: float
    p_value: float
    reason: Reason | None
    candidates: tuple[tuple[str, float], ...]
    set: tuple[str, ...] | None = None
    own_p_values: tuple[float, ...] = ()


def methods_of(recognition: Recognition) -> tuple[str, ...]:
    """Every method for which a model has what is needed; any two can be asked to agree.

    OpenMax is not for codes: a log likelihood is never above 0, so none of it could be given away.
    """
    plain = (method for method in own.LOGITS_METHODS if method != "openmax" or recognition.codes is None)
    special = {
        "other": recognition.other is not None,
        "codes": recognition.codes is not None,
        "detector": recognition.detector is not None,
    }
    return (*plain, *(method for method in special if special[method]), *recognition.scores)


def parts_of(method: str) -> tuple[str, ...]:
    """The methods that a method consists of: itself, or two that must agree."""
    return tuple(method.split(AGREEMENT))


def check_options(
    recognition: Recognition, calibration: Calibration, method: str, level: float, top_k: int, *, sets: bool
) -> None:
    """Whether a request can be answered, before the model is called.

    Raises:
        BadRequest: the model or its calibration has no such method, too few rows for the level, or no sets; or level
            or top_k are out of bounds.
    """
    if not 0 < level < 1:
        raise BadRequest(
            f'"level" is the share of known rows that may be rejected, between 0 and 1; got {level!r:.80}.'
        )
    if top_k < 1:
        raise BadRequest(f'"top_k" is 1 or more; got {top_k!r:.80}.')
    check_method(recognition, method)
    parts = parts_of(method)
    for part in parts:
        if part not in calibration.methods:
            raise BadRequest(
                f"The calibration of {calibration.model} version {calibration.version} has no scores of {part!r}; it "
                f"has {', '.join(calibration.methods)}. Ask for one of these, or calibrate again with --method {part}."
            )
        for label in recognition.classes:
            calibration.methods[part].threshold(level, label, len(parts))
    if sets:
        _set_bound(calibration, level)


def check_method(recognition: Recognition, method: str) -> None:
    """Raises: BadRequest: the model has no such method, or two that are no pair are asked to agree."""
    offered, parts = methods_of(recognition), parts_of(method)
    if len(parts) > 2 or len(set(parts)) < len(parts) or not set(parts) <= set(offered):
        raise BadRequest(
            f'"method" is one of {", ".join(offered)} here, or two of them that must agree, such as '
            f"{offered[0]}{AGREEMENT}{offered[1]}; got {method!r:.80}."
        )


def threshold_of(calibration: Calibration, method: str, level: float) -> float | None:
    """The threshold that all rows share; None where it differs by class, or is of two methods that must agree.

    Raises:
        BadRequest: there are too few calibration scores for this level.
    """
    calibrated = calibration.methods.get(method)
    return None if calibrated is None or calibrated.by_class is not None else calibrated.threshold(level)


def class_logits(recognition: Recognition, logits: Array) -> Array:
    """The logits of the known classes, float64 `[batch, class]`: without "other", and of codes their log likelihood."""
    if recognition.codes is not None:
        return own.code_logits(logits, recognition.codes)
    return logits[:, : len(recognition.classes)].astype(np.float64)


def score_of(
    recognition: Recognition, method: str, logits: Array, scores: Mapping[str, Array], temperature: float,
    openmax: own.OpenMax | None,
) -> Array:  # fmt: skip
    """The scores of one method, no agreement, float64 `[batch]`, larger = stranger.

    logits: `[batch, class or unit]`, as the model answers them. scores: by method, `[batch]`, of those that a model
    computes: `recognition.scores` and the detector's. openmax is there where the method is OpenMax.

    Raises:
        BackendError: the model did not answer what its contract says, or something that is not finite.
    """
    check_logits(recognition, logits)
    if method in recognition.scores or method == "detector":
        return _answered(method, scores.get(method), len(logits))
    if method == "other":
        return own.other(logits, len(recognition.classes))
    if method == "codes":
        return own.codes(logits, recognition.codes or ())
    known = class_logits(recognition, logits)
    if method in _TEMPERED:
        return _TEMPERED[method](known, temperature)
    if openmax is not None and method == "openmax":
        return own.openmax(known, openmax)
    return _PLAIN[method](known)


def check_logits(recognition: Recognition, logits: Array) -> None:
    """Raises: BackendError: logits are not float `[batch, width]` as the contract says, or not finite."""
    if logits.ndim != 2 or logits.shape[1] != recognition.width:
        raise BackendError(
            f"The model must answer {recognition.logits!r} of shape [batch, {recognition.width}]; "
            f"{list(logits.shape)} came."
        )
    if not np.isfinite(logits).all():
        raise BackendError(f"The model answered {recognition.logits!r} that are not finite.")


def decide(
    recognition: Recognition, calibration: Calibration, method: str, level: float, logits: Array,
    scores: Mapping[str, Array], top_k: int = 3, *, sets: bool = False,
) -> list[Recognized]:  # fmt: skip
    """One answer for each row. Options have passed `check_options`; arrays are as `score_of` takes them.

    Raises:
        BackendError: as `score_of`.
    """
    parts = parts_of(method)
    check_logits(recognition, logits)
    known = class_logits(recognition, logits)
    probabilities = own.softmax(known, calibration.temperature)
    closest = [recognition.classes[place] for place in known.argmax(axis=1).tolist()]
    judged = [_judged(recognition, calibration, part, level / len(parts), logits, scores, closest) for part in parts]
    rows = judged[0] if len(judged) == 1 else map(_agreed, *judged)
    own_p_values = zip(*([p_value for _, _, p_value, _ in rows_of_one] for rows_of_one in judged), strict=True)
    candidates = _candidates(recognition.classes, probabilities, top_k)
    found = _sets(recognition.classes, calibration, level, probabilities) if sets else [None] * len(closest)
    return [
        Recognized(
            None if reason else label, reason is None, label, score, threshold, p_value, reason, likeliest, set_, each
        )
        for label, (score, threshold, p_value, reason), likeliest, set_, each in zip(
            closest, rows, candidates, found, own_p_values, strict=True
        )
    ]


_Judged = tuple[
    float, float, float, Reason | None
]  # of a row: its score, the threshold, its p-value, why it is unknown


def _judged(
    recognition: Recognition, calibration: Calibration, method: str, level: float, logits: Array,
    scores: Mapping[str, Array], closest: Sequence[str],
) -> list[_Judged]:  # fmt: skip
    """What one method says of each row."""
    found = score_of(recognition, method, logits, scores, calibration.temperature, calibration.openmax)
    calibrated = calibration.methods[method]
    thresholds = calibrated.thresholds(level, closest)
    reasons: list[Reason | None] = [None] * len(closest)
    for row in np.flatnonzero(found > np.array(thresholds)).tolist():
        reasons[row] = _reason(recognition, method, logits[row])
    p_values = calibrated.p_values(found, closest).tolist()
    return list(zip(found.tolist(), thresholds, p_values, reasons, strict=True))


def _agreed(first: _Judged, second: _Judged) -> _Judged:
    """What two methods say of a row that must both accept it; if only one rejects it, they disagree."""
    score, threshold, p_value, _ = min(first, second, key=lambda judged: judged[2])
    of_first, of_second = first[3], second[3]
    reason = of_first if of_first and of_second else "disagreement" if of_first or of_second else None
    return score, threshold, min(1.0, 2 * p_value), reason


def _reason(recognition: Recognition, method: str, logits: Array) -> Reason:
    if method == "codes" and tuple((logits > 0).astype(int).tolist()) not in set(recognition.codes or ()):
        return "no_code"
    return _REASONS.get(method, "score")


def _candidates(classes: Sequence[str], probabilities: Array, top_k: int) -> list[tuple[tuple[str, float], ...]]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    best = probabilities[np.arange(len(order))[:, np.newaxis], order]
    return [
        tuple([(classes[place], probability) for place, probability in zip(places, own_, strict=True)])
        for places, own_ in zip(order.tolist(), best.tolist(), strict=True)
    ]


def _sets(
    classes: Sequence[str], calibration: Calibration, level: float, probabilities: Array
) -> list[tuple[str, ...] | None]:
    """Prediction sets: with a probability of 1 - level or more, a known row's class is in its set.

    They are sets of least average size (Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued Classifiers ...").
    """
    inside = 1 - probabilities <= _set_bound(calibration, level)
    return [tuple(label for label, is_in in zip(classes, row, strict=True) if is_in) for row in inside.tolist()]


def _set_bound(calibration: Calibration, level: float) -> float:
    if calibration.set_scores is None:
        raise BadRequest(
            f"The calibration of {calibration.model} version {calibration.version} knows nothing of sets; calibrate "
            'again, or ask without "sets".'
        )
    return Calibrated(calibration.set_scores).threshold(level)


def least_level(rows: int, methods: int = 1) -> float:
    """The smallest level that so many calibration rows are enough for; none is if it is 1 or more."""
    return ceil(_DIGITS * methods / (rows + 1)) / _DIGITS


def _needed(level: float) -> int:
    """The fewest calibration rows of which one can be rejected: a quotient alone may be one off, as it is rounded."""
    about = max(1, ceil(1 / level) - 1)
    return next(rows for rows in count(about) if 1 / rows <= level) - 1


def _p_values(known: Array, scores: Array) -> Array:
    at_least = len(known) - np.searchsorted(known, scores, side="left")
    return (1 + at_least) / (len(known) + 1)


def _answered(method: str, scores: Array | None, rows: int) -> Array:
    if scores is None or scores.shape != (rows,):
        came = "none" if scores is None else list(scores.shape)
        raise BackendError(f"The model must answer [{rows}] scores of {method!r}; {came} came.")
    if not np.isfinite(scores).all():
        raise BackendError(f"The model answered scores of {method!r} that are not finite.")
    return scores.astype(np.float64)
