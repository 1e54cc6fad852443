"""Metrics by group: the rows of each value of the group column by themselves.

It does not know what a group is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.evaluator.document import Cell, Table
from sluice.evaluator.statistics import Resampled
from sluice.evaluator.tasks.task import Measure, Values

FEW = 30  # rows, below which a group's metrics say little
_MOST = 100  # groups that are shown


def slices(measures: Mapping[str, Measure], values: Values, groups: NDArray[Any]) -> Table:
    """A line for each group, by name; of very many groups, for the largest ones. What is undefined is None."""
    by_size = sorted(rows_of(groups).items(), key=lambda each: -len(each[1]))
    shown = sorted(by_size[:_MOST], key=_order)
    few = sum(len(places) < FEW for _, places in shown)
    text = f"{few} of the groups have fewer than {FEW} rows and say little." if few else ""
    if len(by_size) > _MOST:
        text = f"The {_MOST} largest of {len(by_size)} groups. {text}".strip()
    return Table(
        title="Groups",
        text=text,
        columns=("group", "rows", "few rows", *measures),
        rows=tuple(
            (name, len(places), len(places) < FEW, *_cells(measures, Resampled(values, places)))
            for name, places in shown
        ),
    )


def _order(group: tuple[str, NDArray[np.int64]]) -> tuple[bool, float, str]:
    """Names that are numbers first, by size, and then the others."""
    name, _ = group
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


def _cells(measures: Mapping[str, Measure], values: Values) -> Sequence[Cell]:
    found = [measure.of(values) for measure in measures.values()]
    return [value if np.isfinite(value) else None for value in found]


def rows_of(groups: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """The places of each group's rows, by its name."""
    names, inverse = np.unique(groups, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1])
    return dict(zip(map(str, names.tolist()), parts, strict=True))
