"""Two versions on the same rows: differences with intervals, a paired test, and the groups that lose most.

It does not know how either was asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from sluice.evaluator.document import Cell, Comparison, Section, Table
from sluice.evaluator.slices import FEW, rows_of
from sluice.evaluator.statistics import Bootstrap, Resampled, metric
from sluice.evaluator.tasks.task import Array, Measure, Task, Values

_WORST = 20  # groups that are shown


def compared(
    task: Task, version: int, values: Values, others: Values, bootstrap: Bootstrap, groups: NDArray[Any] | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> Comparison:  # fmt: skip
    """The metrics of `values` less those of the `others`, of `version`; both with `weight`, of the same rows in order.

    `measures` are those to compare, all of the task without it; the first decides which groups are worst.
    """
    chosen = task.measures if measures is None else measures

    def differences(own: Values, other: Values) -> Array:
        return np.array([measure.of(own) - measure.of(other) for measure in chosen.values()])

    with np.errstate(invalid="ignore"):  # infinite less infinite
        found = differences(values, others)
        low, high, no_interval = bootstrap.intervals(
            lambda places: differences(Resampled(values, places), Resampled(others, places)), len(values["weight"])
        )
    named = {
        name: metric(measure, *each, no_interval, _missing(measure, values, others))
        for (name, measure), each in zip(
            chosen.items(), zip(found.tolist(), low.tolist(), high.tolist(), strict=True), strict=True
        )
    }
    test, p_value = _tested(values[task.tested], others[task.tested], bootstrap.sessions)
    sections: Sequence[Section] = ()
    if groups is not None and chosen:
        sections = _worst(*next(iter(chosen.items())), values, others, groups)
    return Comparison(version=version, differences=named, test=test, p_value=p_value, sections=tuple(sections))


def _missing(measure: Measure, values: Values, others: Values) -> str:
    missing = measure.missing(values if np.isnan(measure.of(values)) else others)
    return missing and f"{missing}, in a version"


def _tested(own: Array, other: Array, sessions: NDArray[Any] | None) -> tuple[str, float | None]:
    """The name of the test and what it says, and its p-value, two-sided."""
    if sessions is not None:
        own, other = (_by_session(each, sessions) for each in (own, other))
    if own.dtype == bool:
        better, worse = int((own & ~other).sum()), int((other & ~own).sum())
        name = "McNemar's exact test"
        told = f"this version alone is right in {better:,} rows, the other alone in {worse:,}"
    else:
        defined = np.isfinite(own) & np.isfinite(other)
        better, worse = int((own < other)[defined].sum()), int((own > other)[defined].sum())
        name, what = "Sign test", "rows" if sessions is None else "sessions"
        told = f"this version's error is smaller in {better:,} {what} and larger in {worse:,}"
    if not better + worse:
        return f"{name}: the versions do not differ in any row.", None
    return f"{name}: {told}.", float(binomtest(better, better + worse).pvalue)


def _by_session(values: Array, sessions: NDArray[Any]) -> Array:
    """The mean of each session, or of right answers, the share of wrong ones: rows of one hang together."""
    errors = (~values if values.dtype == bool else values).astype(np.float64)
    _, places, counts = np.unique(sessions, return_inverse=True, return_counts=True)
    return np.bincount(places, errors) / counts


def _worst(
    name: str, measure: Measure, values: Values, others: Values, groups: NDArray[Any]
) -> Sequence[Section]:  # fmt: skip
    """The groups that lose most in a metric, the worst first."""
    sign = -1 if measure.better == "higher" else 1
    lines: list[tuple[float, tuple[Cell, ...]]] = []
    for group, places in rows_of(groups).items():
        own, other = (measure.of(Resampled(each, places)) for each in (values, others))
        if np.isfinite(own) and np.isfinite(other):
            lines.append((sign * (own - other), (group, len(places), len(places) < FEW, own, other, own - other)))
    if not lines:
        return ()
    lines.sort(key=lambda line: -line[0])
    return (
        Table(
            title=f"Groups by loss in {name}",
            text=f"The worst first, {_WORST} at most. Groups of fewer than {FEW} rows say little.",
            columns=("group", "rows", "few rows", "this version", "other version", "difference"),
            rows=tuple(line for _, line in lines[:_WORST]),
        ),
    )
