"""Errors of numbers that are predicted: sums for each row, and the metrics that are made of them.

It does not know where predictions come from. A row of more numbers counts more: metrics are over all numbers, as those
of Keras's `evaluate` and, on flat arrays, scikit-learn's.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from sluice.data import Column
from sluice.evaluator.tasks.task import Array, Measure, Values
from sluice.evaluator.tasks.values import padded_rows, ratio

_NO_WEIGHT = "no row has a weight"
_ALIKE = "all labels are the same, or no row has a weight"
_ZERO = "a label is 0, of which nothing is a share"


def error_values(predicted: Column, labels: Column) -> Values:
    """For each row, float64 `[rows]`: sums over its numbers, their count, and the mean and spread of its labels.

    predicted, labels: float64 `[rows, ...]`, or each row's own array, of the same shapes.
    """
    if isinstance(predicted, list) or isinstance(labels, list):
        if not len(predicted):
            return error_values(np.zeros((0, 1)), np.zeros((0, 1)))
        each = [error_values(row[np.newaxis], own[np.newaxis]) for row, own in zip(predicted, labels, strict=True)]
        return {name: np.concatenate([values[name] for values in each]) for name in each[0]}
    found, right = (array.reshape(len(array), -1).astype(np.float64) for array in (predicted, labels))
    errors = np.abs(found - right)
    both = np.abs(found) + np.abs(right)
    means = right.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(right == 0, np.nan, errors / np.abs(right))
        symmetric = np.where(both == 0, 0.0, 2 * errors / both)
    return {
        "elements": np.full(len(right), float(right.shape[1])),
        "absolute_error": errors.sum(axis=1),
        "squared_error": (errors**2).sum(axis=1),
        "percentage_error": shares.sum(axis=1),
        "symmetric_error": symmetric.sum(axis=1),
        "label_mean": means[:, 0],
        "label_spread": ((right - means) ** 2).sum(axis=1),
        "error": errors.mean(axis=1),
    }


def error_measures(unit: str = "", prefix: str = "") -> Mapping[str, Measure]:
    """The metrics of `error_values`; `prefix` is that of the values' names and of the metrics'."""
    squared = f"{unit}²" if unit else ""
    found = {
        "mae": Measure(partial(_mean, prefix, "absolute_error"), "lower", unit=unit, undefined=_NO_WEIGHT),
        "rmse": Measure(partial(_root, prefix), "lower", unit=unit, undefined=_NO_WEIGHT),
        "mse": Measure(partial(_mean, prefix, "squared_error"), "lower", unit=squared, undefined=_NO_WEIGHT),
        "mape": Measure(partial(_mean, prefix, "percentage_error"), "lower", share=True, undefined=_ZERO),
        "smape": Measure(partial(_mean, prefix, "symmetric_error"), "lower", share=True, undefined=_NO_WEIGHT),
        "r2": Measure(partial(_determination, prefix), "higher", undefined=_ALIKE),
    }
    return {f"{prefix}{name}": measure for name, measure in found.items()}


def step_errors(predicted: Column, labels: Column, axis: int) -> Array:
    """The mean absolute error of each time step of a row, float64 `[rows, time]`; NaN after a row's last one.

    axis: which axis of a row is time.
    """
    return padded_rows(
        [_by_step(np.abs(row - own), axis) for row, own in zip(predicted, labels, strict=True)]
    )  # fmt: skip


def _by_step(errors: Array, axis: int) -> Array:
    steps = np.moveaxis(errors, axis, 0)
    return steps.reshape(len(steps), -1).mean(axis=1)  # type: ignore[no-any-return]


def _mean(prefix: str, name: str, values: Values) -> float:
    return ratio(values, f"{prefix}{name}", f"{prefix}elements")


def _root(prefix: str, values: Values) -> float:
    return float(np.sqrt(_mean(prefix, "squared_error", values)))


def _determination(prefix: str, values: Values) -> float:
    """R² = 1 - Σ w e² / Σ w (y - mean y)²; the spread is that within rows and that of the rows' means."""
    counts = values["weight"] * values[f"{prefix}elements"]
    means = values[f"{prefix}label_mean"]
    total = counts.sum()
    if not total > 0:
        return np.nan
    between = counts * (means - (counts * means).sum() / total) ** 2
    spread = (values["weight"] * values[f"{prefix}label_spread"] + between).sum()
    errors = (values["weight"] * values[f"{prefix}squared_error"]).sum()
    return float(1 - errors / spread) if spread > 0 else np.nan
