"""Every method's scores of one trained set of networks. It does not know what is made of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice.export import ScoreOptions
from sluice.export.scores import METHODS, Head, Known
from sluice.policy import scores
from sluice_models.openset.data import Data, Pictures
from sluice_models.openset.variants import Outputs, Variant, closed_set

CALIBRATION, OUTLIERS, TEST, NEAR, FAR, TRAIN = "calibration", "calibration_outliers", "test", "near", "far", "train"
TEMPERED = "top_probability, with temperature"
OTHER_KNN, OTHER_BOTH, BOTH = "knn beside other", "knn+other", "knn+energy"

_FITTED = (TEMPERED, "openmax")
_TIMED_ROWS = 128
_TIMINGS = 30

Scores = NDArray[np.floating[Any]]
Parts = Mapping[str, Scores]  # a method's scores by part of the data


@dataclass(frozen=True, slots=True)
class Scored:
    """What one method says of every part of the data.

    Attributes:
        method: its name.
        parts: its scores by part; larger = stranger.
        right: which knowns of the test are classified rightly by the network that answers.
        microseconds: what it adds for a row, in batches of 128.
    """

    method: str
    parts: Parts
    right: NDArray[np.bool_]
    microseconds: float


def pictures_of(data: Data) -> dict[str, Pictures]:
    """The parts of the data by name; all kinds that are far are one."""
    return {
        TRAIN: data.train.pictures,
        CALIBRATION: data.calibration.pictures,
        OUTLIERS: data.calibration_outliers,
        TEST: data.test.pictures,
        NEAR: data.near,
        FAR: np.concatenate([*data.far.values()]),
    }


def scored(variants: Mapping[str, Variant], data: Data, options: ScoreOptions) -> Iterator[Scored]:
    """Every method, in the order of the table."""
    parts = pictures_of(data)
    answers = {which: each.answers(parts, options) for which, each in variants.items()}
    right = {
        which: closed_set(each, answers[which][TEST]["logits"]) == data.test.labels
        for which, each in variants.items()
        if which != "detector"
    }
    closed = [*_of_logits(answers["closed"], data, right["closed"])]
    closed += _of_features(variants["closed"], answers["closed"], options, right["closed"])
    yield from closed
    other = [*_of_other(variants["other"], answers["other"], options, right["other"])]
    yield from other
    yield _by(
        "codes",
        answers["codes"],
        lambda logits: scores.codes(logits, variants["codes"].classes.codes or ()),
        right["codes"],
    )
    yield _of_detector(variants["detector"], answers["detector"], right["closed"])
    by_name = {each.method: each for each in (*closed, *other)}
    yield _agreement(BOTH, by_name["knn"], by_name["energy"])
    yield _agreement(OTHER_BOTH, by_name[OTHER_KNN], by_name["other"])


def _of_logits(answers: Mapping[str, Outputs], data: Data, right: NDArray[np.bool_]) -> Iterator[Scored]:
    """What is fitted to pictures of the calibration is compared with the others of them, as `sluice calibrate` does."""
    calibration, labels = answers[CALIBRATION]["logits"], data.calibration.labels
    to_fit = scores.every_other(labels)
    temperature = scores.fit_temperature(calibration[to_fit], labels[to_fit])
    weibull = scores.fit_openmax(calibration[to_fit], labels[to_fit])
    rest = {**answers, CALIBRATION: {"logits": calibration[~to_fit]}}
    every: dict[str, Callable[[Scores], Scores]] = {
        "top_probability": scores.top_probability,
        TEMPERED: lambda logits: scores.top_probability(logits, temperature),
        "max_logit": scores.max_logit,
        "energy": scores.energy,
        "entropy": scores.entropy,
        "margin": scores.margin,
        "gen": scores.gen,
        "openmax": lambda logits: scores.openmax(logits, weibull),
    }
    for method, score in every.items():
        yield _by(method, rest if method in _FITTED else answers, score, right)


def _by(
    method: str, answers: Mapping[str, Outputs], score: Callable[[Scores], Scores], right: NDArray[np.bool_]
) -> Scored:
    """A method that is a function of logits."""
    parts = {part: score(outputs["logits"]) for part, outputs in answers.items() if part != TRAIN}
    rows = answers[NEAR]["logits"][:_TIMED_ROWS]
    return Scored(method, parts, right, _microseconds(lambda: score(rows), len(rows)))


def _of_features(
    variant: Variant, answers: Mapping[str, Outputs], options: ScoreOptions, right: NDArray[np.bool_]
) -> Iterator[Scored]:
    seen = answers[TRAIN]
    head = Head(variant.model.get_layer("logits"))
    known = Known(seen["features"].astype(np.float64), seen["logits"].astype(np.float64), variant.labels, head)
    rows = {name: tf.constant(answers[NEAR][name][:_TIMED_ROWS]) for name in ("features", "logits")}
    for method, fit in METHODS.items():
        run = tf.function(fit(known, options))
        taken = _microseconds(lambda run=run: run(rows["features"], rows["logits"]).numpy(), _TIMED_ROWS)
        yield Scored(method, _parts(answers, method), right, taken)


def _parts(answers: Mapping[str, Outputs], method: str) -> Parts:
    return {part: outputs[f"scores/{method}"] for part, outputs in answers.items() if part != TRAIN}


def _of_other(
    variant: Variant, answers: Mapping[str, Outputs], options: ScoreOptions, right: NDArray[np.bool_]
) -> Iterator[Scored]:
    place = len(variant.classes.names)
    yield _by("other", answers, lambda logits: scores.other(logits, place), right)
    seen = answers[TRAIN]
    known = Known(seen["features"].astype(np.float64), seen["logits"][:, :place].astype(np.float64), variant.labels)
    run = tf.function(METHODS["knn"](known, options))
    rows = [tf.constant(answers[NEAR][name][:_TIMED_ROWS]) for name in ("features", "logits")]
    yield Scored(OTHER_KNN, _parts(answers, "knn"), right, _microseconds(lambda: run(*rows).numpy(), _TIMED_ROWS))


def _of_detector(variant: Variant, answers: Mapping[str, Outputs], right: NDArray[np.bool_]) -> Scored:
    made = _by("detector", answers, lambda logits: scores.detector(logits, 0), right)
    rows = tf.constant(variant.pictures[:_TIMED_ROWS])
    run = tf.function(lambda x: variant.model(x, training=False))
    return Scored("detector", made.parts, right, _microseconds(lambda: run(rows).numpy(), _TIMED_ROWS))


def _agreement(name: str, first: Scored, second: Scored) -> Scored:
    """Rejected if either rejects: the greater of both, measured by each one's median and 95th percentile."""
    pairs = zip(_measured(first.parts).items(), _measured(second.parts).items(), strict=True)
    parts = {part: np.maximum(a, b) for (part, a), (_, b) in pairs}
    return Scored(name, parts, first.right, first.microseconds + second.microseconds)


def _measured(parts: Parts) -> dict[str, Scores]:
    middle, high = np.quantile(parts[CALIBRATION], (0.5, 0.95))
    return {part: (each - middle) / max(high - middle, 1e-12) for part, each in parts.items()}


def _microseconds(run: Callable[[], object], rows: int) -> float:
    """The median time of a call, for each row."""
    run()
    taken = []
    for _ in range(_TIMINGS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return median(taken) * 1e6 / rows
