"""How strange features are to a classifier's training data: [batch] float32, larger = stranger.

Each function here fits one method in numpy and gives what runs in the graph. They know no models, files or thresholds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice.export.bank import bank, normalised
from sluice.export.errors import ExportError

Floats = NDArray[np.float64]
Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # features [batch, d] and logits [batch, class] to [batch]

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What the methods leave to be chosen; choose it on calibration data, never on test data.

    Attributes:
        shrinkage: of covariances, from 0 to 1: how far they are drawn towards a multiple of the identity.
        neighbours: `knn` takes the distance to the so-manieth nearest row.
        rows_per_class: the most rows of each class that `knn` keeps.
        principal: how many dimensions of the features `vim` takes for the known ones, half of them if None.
        percentile: of all features in the training data, where `react` clips them, from 0 to 100.
    """

    shrinkage: float = 0.01
    neighbours: int = 5
    rows_per_class: int = 200
    principal: int | None = None
    percentile: float = 90.0


@dataclass(frozen=True, slots=True)
class Head:
    """What follows the features in a classifier.

    Attributes:
        run: features [batch, d] to logits [batch, class].
        kernel: [d, class] and `bias`: [class], where that is one dense layer; otherwise both are None.
    """

    run: Callable[[tf.Tensor], tf.Tensor]
    kernel: Floats | None = None
    bias: Floats | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """The training data as the classifier sees it.

    Attributes:
        features: [n, d].
        logits: [n, class].
        labels: int [n], from 0 to classes - 1, each of them there.
        head: what makes logits of features; None where features alone do not determine them.
    """

    features: Floats
    logits: Floats
    labels: NDArray[np.int64]
    head: Head | None = None

    @property
    def means(self) -> Floats:
        """The mean features of each class, [class, d]."""
        return np.stack([self.features[self.labels == each].mean(axis=0) for each in range(self.labels.max() + 1)])


def mahalanobis(known: Known, options: ScoreOptions) -> Score:
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes (Lee et al. 2018).

    The covariance is shrunk: (1 - s) S + s trace(S) / d I.

    Raises:
        ExportError: there are fewer rows than dimensions.
    """
    return _nearest(*_shared_gaussian("mahalanobis", known, options))


def relative_mahalanobis(known: Known, options: ScoreOptions) -> Score:
    """`mahalanobis` less the squared distance to the mean of all rows under their covariance (Ren et al. 2021).

    Raises:
        ExportError: there are fewer rows than dimensions.
    """
    centre = known.features.mean(axis=0, keepdims=True)
    near = _nearest(*_shared_gaussian("relative_mahalanobis", known, options))
    background = _nearest(centre, _whitening("relative_mahalanobis", known.features - centre, options.shrinkage))
    return lambda features, logits: near(features, logits) - background(features, logits)


def _shared_gaussian(method: str, known: Known, options: ScoreOptions) -> tuple[Floats, Floats]:
    means = known.means
    return means, _whitening(method, known.features - means[known.labels], options.shrinkage)


def _whitening(method: str, centred: Floats, shrinkage: float) -> Floats:
    """W [d, d] with W Wᵀ the inverse of the shrunk covariance of rows whose mean is zero."""
    _check_rows(method, centred)
    covariance = centred.T @ centred / len(centred)
    dimensions = len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / dimensions * np.eye(dimensions)
    values, vectors = np.linalg.eigh(shrunk)
    if not values[0] > 0:
        raise ExportError(
            f"method '{method}': expected a covariance with an inverse, got one with the eigenvalue {values[0]:.3g}; "
            "raise the shrinkage, or choose a features layer whose units differ"
        )
    return vectors / np.sqrt(values)


def _check_rows(method: str, rows: Floats) -> None:
    count, dimensions = rows.shape
    if count < dimensions:
        raise ExportError(
            f"method '{method}': expected as many training rows as features have dimensions ({dimensions}), got "
            f"{count}; give more rows, choose a smaller features layer, or leave the method out"
        )


def _nearest(means: Floats, whitening: Floats) -> Score:
    """The least squared distance from the means, where the whitened features have the identity as covariance."""
    matrix, centres = _constant(whitening), _constant(means @ whitening)

    def score(features: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        white = tf.matmul(features, matrix)
        return tf.reduce_min(tf.reduce_sum((white[:, None] - centres) ** 2, axis=2), axis=1)

    return score


def knn(known: Known, options: ScoreOptions) -> Score:
    """Distance between normalised features, to the k-th nearest of the rows that are kept (Sun et al. 2022).

    Of a class with more than `rows_per_class` rows those nearest to the centres of k-means are kept.

    Raises:
        ExportError: fewer than k rows are kept.
    """
    kept = bank(known.features, known.labels, options.rows_per_class)
    if len(kept) < options.neighbours:
        raise ExportError(
            f"method 'knn': expected {options.neighbours} rows or more in the bank, got {len(kept)}; "
            "ask for fewer neighbours, or keep more rows"
        )
    rows = _constant(normalised(kept))

    def score(features: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        unit = features / tf.maximum(tf.norm(features, axis=1, keepdims=True), _TINY)
        _, order = tf.math.top_k(tf.matmul(unit, rows, transpose_b=True), options.neighbours)
        return tf.norm(unit - tf.gather(rows, order[:, -1]), axis=1)

    return score


def vim(known: Known, options: ScoreOptions) -> Score:
    """Virtual-logit matching (Wang et al. 2022): what the known features' main directions leave over, against energy.

    Features are centred where a dense head gives no logits, -W⁺b; before any other head, on their mean. What they have
    outside the principal directions is scaled by the mean largest logit over its mean length; then the energy of the
    logits is added.

    Raises:
        ExportError: there are fewer rows than dimensions, or not fewer principal directions than dimensions.
    """
    _check_rows("vim", known.features)
    dimensions = known.features.shape[1]
    principal = dimensions // 2 if options.principal is None else options.principal
    if not 0 < principal < dimensions:
        raise ExportError(f"method 'vim': expected from 1 to {dimensions - 1} principal directions, got {principal}")
    origin = _origin(known)
    centred = known.features - origin
    _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    rest = vectors[:, : dimensions - principal]
    scale = known.logits.max(axis=1).mean() / max(np.linalg.norm(centred @ rest, axis=1).mean(), _TINY)
    matrix, offset = _constant(scale * rest), _constant(scale * (origin @ rest))
    return lambda features, logits: tf.norm(tf.matmul(features, matrix) - offset, axis=1) + energy(logits)


def _origin(known: Known) -> Floats:
    if known.head is None or known.head.kernel is None or known.head.bias is None:
        return known.features.mean(axis=0)
    return -np.linalg.pinv(known.head.kernel.T) @ known.head.bias


def she(known: Known, options: ScoreOptions) -> Score:
    """Simplified Hopfield energy (Zhang et al. 2023): less the inner product with the predicted class's mean features.

    The mean is over the training rows that are classified rightly.

    Raises:
        ExportError: a class has no such row.
    """
    right = known.logits.argmax(axis=1) == known.labels
    missing = {*range(known.labels.max() + 1)} - {*known.labels[right].tolist()}
    if missing:
        raise ExportError(
            f"method 'she': expected training rows of each class that are classified rightly, got none of class "
            f"{min(missing)}; train longer, or leave the method out"
        )
    patterns = _constant(Known(known.features[right], known.logits[right], known.labels[right]).means)
    return lambda features, logits: -tf.reduce_sum(features * tf.gather(patterns, tf.argmax(logits, axis=1)), axis=1)


def react(known: Known, options: ScoreOptions) -> Score:
    """Energy of the logits of clipped features (Sun et al. 2021); a percentile of all training features is the bound.

    Raises:
        ExportError: the logits depend on more than the features.
    """
    if known.head is None:
        raise ExportError(
            "method 'react': expected logits that are computed of the features alone; choose a later features layer, "
            "or leave the method out"
        )
    run, bound = known.head.run, _constant(np.percentile(known.features, options.percentile))

    def score(features: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return energy(run(tf.minimum(features, bound)))

    return score


def energy(logits: tf.Tensor) -> tf.Tensor:
    """Less the log of the sum of the exponentials (Liu et al. 2020)."""
    return -tf.reduce_logsumexp(logits, axis=1)


METHODS: Mapping[str, Callable[[Known, ScoreOptions], Score]] = {
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "knn": knn,
    "vim": vim,
    "she": she,
    "react": react,
}
# What needs no logits of classes, and so can be had of output codes too.
OF_FEATURES = ("mahalanobis", "relative_mahalanobis", "knn")


def _constant(values: NDArray[np.float64] | np.float64) -> tf.Tensor:
    return tf.constant(np.asarray(values, np.float32))
