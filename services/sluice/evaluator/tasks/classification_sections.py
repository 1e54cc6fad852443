"""Tables and plots of a classification: each class, which is taken for which, and reliability.

It does not know how rows were answered.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sluice.evaluator.document import Bars, Lines, Matrix, Section, Table
from sluice.evaluator.tasks.task import Array, Values

_MOST = 100  # classes that a table or a matrix shows


def per_class(names: Sequence[str], counts: NDArray[np.float64]) -> Sequence[Section]:
    """Precision, recall and F1 of each class; of very many classes, of those with the least F1."""
    right, rows, answered = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    f1 = _share(2 * right, rows + answered)
    order = np.arange(len(names)) if len(names) <= _MOST else np.argsort(np.nan_to_num(f1, nan=2.0), kind="stable")
    columns = [rows, _share(right, answered), _share(right, rows), f1]
    return (
        Table(
            title="Classes",
            text="Precision: how many of those answered are right. Recall: how many of those that are right are "
            "answered." + (f" The {_MOST} classes with the least F1, of {len(names)}." if len(names) > _MOST else ""),
            columns=("class", "weight", "precision", "recall", "F1"),
            rows=tuple(
                (names[place], *(_cell(column[place]) for column in columns)) for place in order[:_MOST].tolist()
            ),
        ),
    )


def confusion_matrix(names: Sequence[str], counts: NDArray[np.float64]) -> Sequence[Section]:
    """Which class is taken for which, unless there are too many for a picture."""
    if len(names) > _MOST:
        return ()
    text = "Rows are what is right, columns what was answered."
    shown = tuple(map(tuple, counts.tolist()))
    return (Matrix(title="Confusion", text=text, rows=tuple(names), columns=tuple(names), counts=shown),)


def reliability(values: Values, bins: int) -> Sequence[Section]:
    """How often the answer is right, by its probability; and how many rows there are of each probability."""
    weights, places = values["weight"], bin_of(values["confidence"], bins)
    total = np.bincount(places, weights, bins)
    there = np.flatnonzero(total > 0)
    confidence, right = (
        np.bincount(places, weights * values[name], bins)[there] / total[there] for name in ("confidence", "correct")
    )
    points = tuple(zip(confidence.tolist(), right.tolist(), strict=True))
    middles = tuple(f"{(place + 0.5) / bins:.3g}" for place in range(bins))
    return (
        Lines(
            title="Reliability",
            text="On the diagonal, answers are right as often as their probability says; below it the model is too "
            "sure.",
            x="probability of the answer",
            y="share of right answers",
            series={"answers": points},
            diagonal=True,
        ),
        Bars(
            title="Confidence",
            text="How many rows are answered with which probability.",
            x="probability of the answer",
            y="weight of rows",
            names=middles,
            series={"rows": tuple(total.tolist())},
        ),
    )


def bin_of(confidence: Array, bins: int) -> NDArray[np.int64]:
    """Of bins of equal width between 0 and 1, the one that holds each confidence; its upper bound is its own."""
    found: NDArray[np.int64] = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)
    return found


def _share(part: Array, whole: Array) -> Array:
    shares: Array = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
