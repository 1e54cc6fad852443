"""Decides how strange a row looks to a classifier, from its logits alone: numbers that are larger the stranger it is.

It does not know from which number on a row is unknown, nor scores that a model computes from its features
(the exporter writes those into the model: `sluice/export/scores.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A further one also needs its function in `_PLAIN` or `_TEMPERED` of recognition.py.
LOGITS_METHODS = ("top_probability", "max_logit", "energy", "entropy", "margin", "gen", "openmax")
# Methods that take logits of a special form, or another model's, where a contract has them.
SPECIAL_METHODS = ("other", "codes", "detector")
OWN_METHODS = (*LOGITS_METHODS, *SPECIAL_METHODS)

_COLDEST, _HOTTEST = 1e-2, 1e2  # temperatures between which one is looked for
_LEAST_SHAPE, _GREATEST_SHAPE = 1e-2, 1e4  # of a Weibull distribution; the greatest is as good as a step
_TAIL_OF, _LEAST_TAIL, _GREATEST_TAIL = 20, 3, 20  # rows, of whose distances OpenMax fits one
_HALVINGS = 60  # of a range, after which its ends are the same number, or nearly
_FAR = 50.0  # exp(-exp(50)) is 0
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class OpenMax:
    """What OpenMax knows of each class.

    means: float64 `[class, class]`, the mean logits of each class. weibull: float64 `[class, 2]`, shape and scale of
    the largest distances from that mean. alpha: how many of the largest logits are revised.
    """

    means: Array
    weibull: Array
    alpha: int


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Probabilities, float64 `[batch, class]`, of logits `[batch, class]` that are divided by `temperature` before."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def top_probability(logits: Array, temperature: float = 1.0) -> Array:
    """1 - the greatest probability, float64 `[batch]` (Hendrycks & Gimpel 2017, "A Baseline for Detecting ...").

    It is summed from the other classes, so that it tells rows apart whose greatest probability rounds to 1.
    """
    return _others(softmax(logits, temperature)).sum(axis=1)  # type: ignore[no-any-return]


def max_logit(logits: Array) -> Array:
    """The greatest logit, negative, float64 `[batch]` (Hendrycks et al. 2022, "Scaling Out-of-Distribution ...")."""
    return -logits.astype(np.float64).max(axis=1)  # type: ignore[no-any-return]


def energy(logits: Array, temperature: float = 1.0) -> Array:
    """-T log Σ exp(logit / T), float64 `[batch]` (Liu et al. 2020, "Energy-based Out-of-distribution Detection")."""
    scaled = logits.astype(np.float64) / temperature
    return -temperature * np.logaddexp.reduce(scaled, axis=1)  # type: ignore[no-any-return]


def entropy(logits: Array, temperature: float = 1.0) -> Array:
    """-Σ p log p in nats, float64 `[batch]` (Lakshminarayanan et al. 2017, "Simple and Scalable Predictive ...")."""
    scaled = logits.astype(np.float64) / temperature
    surprise = np.logaddexp.reduce(scaled, axis=1)[:, np.newaxis] - scaled
    return (np.exp(-surprise) * surprise).sum(axis=1)  # type: ignore[no-any-return]


def margin(logits: Array, temperature: float = 1.0) -> Array:
    """1 - (the greatest probability - the next), float64 `[batch]` (Scheffer et al. 2001, "Active Hidden Markov ...").

    With a single class it is 0.
    """
    others = _others(softmax(logits, temperature))
    return others.sum(axis=1) + others.max(axis=1)  # type: ignore[no-any-return]


def gen(logits: Array, gamma: float = 0.1, top: int = 100) -> Array:
    """Σ (p (1 - p))^gamma of the `top` greatest probabilities, float64 `[batch]` (Liu et al. 2023, "GEN ...")."""
    probabilities = softmax(logits)
    product = probabilities * _rest(probabilities)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return (np.take_along_axis(product, order, axis=1) ** gamma).sum(axis=1)  # type: ignore[no-any-return]


def openmax(logits: Array, model: OpenMax) -> Array:
    """The log odds of "none of these", float64 `[batch]` (Bendale & Boult 2016, "Towards Open Set Deep Networks").

    Of the `alpha` greatest logits each gives a part away to the unknown: the more, the farther the row's logits are
    from that class's mean, by its Weibull distribution, and the less, the lower its rank. A logit gives its part away
    by going towards 0, so the method is for networks whose classes have logits well above 0.
    """
    wide = logits.astype(np.float64)
    distances = np.linalg.norm(wide[:, np.newaxis] - model.means, axis=2)
    shape, scale = model.weibull.T
    exponents = np.minimum(shape * np.log(np.maximum(distances, _TINY) / scale), _FAR)
    strangeness = -np.expm1(-np.exp(exponents))
    ranks = np.argsort(np.argsort(-wide, axis=1, kind="stable"), axis=1, kind="stable")
    given_away = wide * strangeness * np.maximum(1 - ranks / model.alpha, 0.0)
    return given_away.sum(axis=1) - np.logaddexp.reduce(wide - given_away, axis=1)  # type: ignore[no-any-return]


def other(logits: Array, place: int) -> Array:
    """The probability of the class that was trained on outliers, float64 `[batch]`; `place` is that of its logit.

    A class for the rest, as in Neal et al. 2018, "Open Set Learning with Counterfactual Images".
    """
    return softmax(logits)[:, place]


def codes(unit_logits: Array, book: Sequence[Sequence[int]]) -> Array:
    """The distance to the nearest class's code, in units, float64 `[batch]`: Σ |sigmoid(logit) - bit|, 0 at a code.

    unit_logits: `[batch, unit]`. book: `[class][unit]`, 0 or 1 (Dietterich & Bakiri 1995, "Solving Multiclass Learning
    Problems via Error-Correcting Output Codes").
    """
    return np.exp(-_unit_losses(-unit_logits, book)).sum(axis=2).min(axis=1)  # type: ignore[no-any-return]


def code_logits(unit_logits: Array, book: Sequence[Sequence[int]]) -> Array:
    """The log likelihood of each class's code, float64 `[batch, class]`, of independent units; use them as logits.

    The class with the least log loss is the answer (Allwein et al. 2000, "Reducing Multiclass to Binary").
    """
    return -_unit_losses(unit_logits, book).sum(axis=2)  # type: ignore[no-any-return]


def detector(logits: Array, known: int) -> Array:
    """1 - the probability of "known", float64 `[batch]`, of a network that was trained to tell known from unknown.

    logits: `[batch, 2]`; `known` is the place of "known" (Hendrycks et al. 2019, "Deep Anomaly Detection with Outlier
    Exposure", for outliers in training).
    """
    return _rest(softmax(logits))[:, known]


def fit_temperature(logits: Array, labels: Array) -> float:
    """The temperature with the least negative log likelihood (Guo et al. 2017, "On Calibration of Modern ...").

    logits: `[row, class]` of rows that were not trained on; labels: int `[row]`, their classes. The likelihood is
    log-concave in 1 / T, so that halving a range finds its peak, from 0.01 to 100. Where every row's own class has the
    greatest logit the likelihood only rises as T falls, which says nothing of confidence: then it is 1.
    """
    wide = logits.astype(np.float64)
    own = wide[np.arange(len(labels)), labels]
    if (own == wide.max(axis=1)).all():
        return 1.0

    def falls(log_temperature: float) -> bool:
        """Whether the loss still falls when T rises."""
        expected = (softmax(wide, np.exp(log_temperature)) * wide).sum(axis=1)
        return bool((expected - own).mean() > 0)

    return float(np.exp(_halved(falls, np.log(_COLDEST), np.log(_HOTTEST))))


def every_other(labels: Array) -> Array:
    """Bool `[row]`: the first, third, … row of each class of `labels` `[row]`.

    What is fitted (temperature, OpenMax) and what later rows are compared with must not be the same rows, or a row that
    comes later looks stranger than it is: fit to these, compare with the rest.
    """
    chosen = np.zeros(len(labels), bool)
    for place in np.unique(labels):
        chosen[np.flatnonzero(labels == place)[::2]] = True
    return chosen


def fit_openmax(logits: Array, labels: Array, tail: int | None = None, alpha: int = 3) -> OpenMax:
    """Each class's mean and the Weibull distribution of its `tail` largest distances, of rows that are answered right.

    logits: `[row, class]`; labels: int `[row]` (Bendale & Boult 2016, algorithm 1; Euclidean distance). The paper's 20
    distances are of a thousand rows, and 20 of 30 would be no tail: unless it is given, `tail` is a twentieth of the
    smallest class, from 3 to 20.

    Raises:
        ValueError: a class has no row that is answered right.
    """
    if tail is None:
        tail = min(max(int(np.bincount(labels).min()) // _TAIL_OF, _LEAST_TAIL), _GREATEST_TAIL)
    wide = logits.astype(np.float64)
    right = wide.argmax(axis=1) == labels
    means, weibull = [], []
    for place in range(wide.shape[1]):
        own = wide[right & (labels == place)]
        if not len(own):
            raise ValueError(f"OpenMax takes rows of each class that are answered right; class {place} has none.")
        means.append(own.mean(axis=0))
        distances = np.linalg.norm(own - means[-1], axis=1)
        weibull.append(fit_weibull(np.sort(distances)[-tail:]))
    return OpenMax(np.array(means), np.array(weibull), alpha)


def fit_weibull(values: Array) -> tuple[float, float]:
    """Shape and scale of the Weibull distribution that makes `values` `[n]`, 0 or more, likeliest.

    The shape solves Σ x^k log x / Σ x^k - 1 / k = mean log x, whose left side rises with k (Cohen 1965, "Maximum
    Likelihood Estimation in the Weibull Distribution ..."); it is at most 10,000, which equal values have.
    """
    logs = np.log(np.maximum(values.astype(np.float64), _TINY))
    greatest = logs.max()
    logs -= greatest

    def too_low(log_shape: float) -> bool:
        shape = np.exp(log_shape)
        powers = np.exp(shape * logs)
        return bool((powers * logs).sum() / powers.sum() - 1 / shape < logs.mean())

    shape = np.exp(_halved(too_low, np.log(_LEAST_SHAPE), np.log(_GREATEST_SHAPE)))
    scale = np.exp(greatest) * np.exp(shape * logs).mean() ** (1 / shape)
    return float(shape), float(scale)


def _halved(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `below` turns from true to false, between `low` and `high`."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _others(probabilities: Array) -> Array:
    """The probabilities with 0 in place of the greatest, float64 `[batch, class]`."""
    others = probabilities.copy()
    np.put_along_axis(others, probabilities.argmax(axis=1)[:, np.newaxis], 0.0, axis=1)
    return others


def _rest(probabilities: Array) -> Array:
    """1 - p, float64 `[batch, class]`, exact also where p is nearly 1."""
    rest: Array = 1 - probabilities
    exact = _others(probabilities).sum(axis=1, keepdims=True)
    np.put_along_axis(rest, probabilities.argmax(axis=1)[:, np.newaxis], exact, axis=1)
    return rest


def _unit_losses(unit_logits: Array, book: Sequence[Sequence[int]]) -> Array:
    """-log of the probability of each class's bits, float64 `[batch, class, unit]`."""
    signs = 2.0 * np.array(book) - 1
    return np.logaddexp(0.0, -signs * unit_logits.astype(np.float64)[:, np.newaxis])
