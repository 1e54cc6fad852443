"""Fits a calibration to what a model answered, and chooses the method: numbers in, a `Calibration` out.

It does not know HTTP, files, or how it is shown.

Methods that need a fit are fitted to every other row of each class, and calibrated on the rest; the others are
calibrated on all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import Recognition
from sluice.policy.errors import BadRequest
from sluice.policy.measures import Measures, measured
from sluice.policy.recognition import (
    Calibrated,
    Calibration,
    check_logits,
    class_logits,
    least_level,
    methods_of,
    parts_of,
    score_of,
)
from sluice.policy.scores import OpenMax, every_other, fit_openmax, fit_temperature, softmax

Array = NDArray[Any]

FITTED = ("top_probability", "entropy", "margin", "openmax")
# The default without unknown rows: what other people's comparisons found best comes first; then what is not named here.
PREFERRED = (
    "knn", "vim", "react", "gen", "she", "relative_mahalanobis", "mahalanobis", "detector", "other", "codes", "energy",
    "max_logit", "openmax", "entropy", "margin", "top_probability",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model answered to rows: logits `[row, width]`, and by method its own scores `[row]`."""

    logits: Array
    scores: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.logits)

    def of(self, rows: Array) -> "Answers":
        """The answers to some of the rows."""
        return Answers(self.logits[rows], {method: scores[rows] for method, scores in self.scores.items()})


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration, with the scores behind it by method, and how well each tells unknown rows, if there are any.

    accuracy: the share of known rows that get their own class. left_out: by method, why it could not be fitted.
    """

    calibration: Calibration
    accuracy: float
    known: Mapping[str, Array]
    unknown: Mapping[str, Array] = field(default_factory=dict)
    measures: Mapping[str, Measures] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def fit(
    recognition: Recognition, blank: Calibration, methods: Sequence[str], known: Answers, labels: Array,
    unknown: Answers | None, *, every: bool, by_class: bool,
) -> Fitted:  # fmt: skip
    """Fill in a `blank` calibration, which says model, version, date, level and data.

    methods: each alone or an agreement of two; labels: int `[row]`, places of classes. With `every`, methods that
    cannot be fitted to these rows are left out with the reason; else:

    Raises:
        ValueError, BadRequest: there are too few rows, of a class or for the level.
        BackendError: the model did not answer what its contract says, or something that is not finite.
    """
    for answers in (known, *(() if unknown is None else (unknown,))):
        check_logits(recognition, answers.logits)
    to_fit = every_other(labels)
    if to_fit.all():
        raise ValueError(
            "A calibration takes two rows or more of a class, one to fit to and one to compare with; "
            f"{len(labels)} known rows came, no two of one class. Give more rows with --known."
        )
    logits = class_logits(recognition, known.logits)
    right = logits.argmax(axis=1) == labels
    temperature = fit_temperature(logits[to_fit], labels[to_fit])
    openmax, left_out = _openmax(logits[to_fit], labels[to_fit], methods, every=every)
    methods = [method for method in methods if not left_out.keys() & set(parts_of(method))]
    parts = list(dict.fromkeys(part for method in methods for part in parts_of(method)))
    rows = {part: np.flatnonzero(~to_fit) if part in FITTED else np.arange(len(known)) for part in parts}
    scores = {
        part: score_of(recognition, part, own.logits, own.scores, temperature, openmax)
        for part in parts
        for own in (known.of(rows[part]),)
    }
    answered = [recognition.classes[place] for place in logits.argmax(axis=1).tolist()]
    calibration = replace(
        blank,
        temperature=temperature,
        methods={
            part: _calibrated(scores[part], [answered[row] for row in rows[part].tolist()], recognition, by_class)
            for part in parts
        },
        openmax=openmax,
        set_scores=_set_scores(logits[~to_fit], labels[~to_fit], temperature),
    )
    usable = _usable(calibration, methods, recognition)
    fitted = Fitted(calibration, float(right.mean()), scores, left_out=left_out)
    if unknown is None:
        return replace(fitted, calibration=replace(calibration, default_method=_preferred(usable)))
    strange = {
        part: score_of(recognition, part, unknown.logits, unknown.scores, temperature, openmax) for part in parts
    }
    measures = {
        method: _measured(method, calibration, recognition, scores, strange, rows, answered, right, unknown)
        for method in methods
    }
    best = max(usable, key=lambda method: (measures[method].auroc, -_place(method)))
    told = {method: asdict(each) for method, each in measures.items()}
    chosen = replace(calibration, default_method=best, unknown=told)
    return replace(fitted, calibration=chosen, unknown=strange, measures=measures)


def all_methods(recognition: Recognition) -> tuple[str, ...]:
    """What `--method all` means: every method of the model by itself."""
    return methods_of(recognition)


def _openmax(
    logits: Array, labels: Array, methods: Sequence[str], *, every: bool
) -> tuple[OpenMax | None, dict[str, str]]:
    if not any("openmax" in parts_of(method) for method in methods):
        return None, {}
    try:
        return fit_openmax(logits, labels), {}
    except ValueError as error:
        if not every:
            raise
        return None, {"openmax": str(error)}


def _calibrated(scores: Array, answered: Sequence[str], recognition: Recognition, by_class: bool) -> Calibrated:
    ordered = np.sort(scores)
    if not by_class:
        return Calibrated(ordered)
    names = np.array(answered)
    own = {label: np.sort(scores[names == label]) for label in recognition.classes}
    if empty := [label for label, found in own.items() if not len(found)]:
        raise ValueError(f"Thresholds by class take rows of each class; the model answered {empty[0]!r} for none.")
    return Calibrated(ordered, own)


def _set_scores(logits: Array, labels: Array, temperature: float) -> Array:
    return np.sort(1 - softmax(logits, temperature)[np.arange(len(labels)), labels])


def _usable(calibration: Calibration, methods: Sequence[str], recognition: Recognition) -> list[str]:
    """The methods that have rows enough for the calibration's own level.

    Raises:
        ValueError: none has.
    """
    usable, refused = [], dict[str, BadRequest]()
    for method in methods:
        parts = parts_of(method)
        try:
            for part in parts:
                for label in recognition.classes:
                    calibration.methods[part].threshold(calibration.level, label, len(parts))
        except BadRequest as error:
            refused[method] = error
        else:
            usable.append(method)
    if not usable:
        raise ValueError(_too_few(calibration, refused, recognition.classes))
    return usable


def _too_few(calibration: Calibration, refused: Mapping[str, BadRequest], classes: Sequence[str]) -> str:
    """How many rows came, what for, and how many are needed, of the method that comes nearest to being usable."""
    compared = {
        method: min(len(calibration.methods[part].of(label)) for part in parts_of(method) for label in classes)
        for method in refused
    }
    nearest = max(refused, key=lambda method: compared[method] / refused[method].details["needed"])
    rows, parts = compared[nearest], parts_of(nearest)
    fitted = {part: len(each.scores) for part, each in calibration.methods.items() if part in FITTED}
    use = ""
    if fitted.keys() & {*parts}:
        use = ", as the others are for its fit"
    elif fitted:
        use = f" ({', '.join(fitted)}: {max(fitted.values())}, as the others are for their fit)"
    each = "" if calibration.methods[parts[0]].by_class is None else " of each class"
    agreeing = "" if len(parts) == 1 else f" of {len(parts)} methods that must agree"
    needed, least = refused[nearest].details["needed"], least_level(rows, len(parts))
    otherwise = f", or a --level of {least:g} or more" if least < 1 else ""
    return (
        f"{calibration.rows} known rows came; {nearest} compares with {rows} of them{use}. The level "
        f"{calibration.level:g}{agreeing} takes {needed} or more{each} to compare with. Give more rows with "
        f"--known{otherwise}."
    )


def _preferred(methods: Sequence[str]) -> str:
    return min(methods, key=_place)


def _place(method: str) -> int:
    """An agreement comes after every method alone, and is the default only if it is asked for alone."""
    return PREFERRED.index(method) if method in PREFERRED else len(PREFERRED) + len(parts_of(method))


def _measured(
    method: str, calibration: Calibration, recognition: Recognition, known: Mapping[str, Array],
    unknown: Mapping[str, Array], rows: Mapping[str, Array], answered: Sequence[str], right: Array, strangers: Answers,
) -> Measures:  # fmt: skip
    """By scores, or by p-values where scores alone do not decide: of two methods, or by class."""
    parts = parts_of(method)
    if len(parts) == 1 and calibration.methods[method].by_class is None:
        return measured(known[method], right[rows[method]], unknown[method])
    common = np.intersect1d(rows[parts[0]], rows[parts[-1]])
    places = class_logits(recognition, strangers.logits).argmax(axis=1).tolist()
    strange_answers = [recognition.classes[place] for place in places]
    own, others = [], []
    for part in parts:
        ours = known[part][np.isin(rows[part], common)]
        own.append(calibration.methods[part].p_values(ours, [answered[row] for row in common.tolist()]))
        others.append(calibration.methods[part].p_values(unknown[part], strange_answers))
    return measured(-np.min(own, axis=0), right[common], -np.min(others, axis=0))
