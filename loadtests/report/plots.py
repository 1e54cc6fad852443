"""The pictures of load tests' pages: what happened over a run's time, and latency by offered load."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from sluice.evaluator.report.page import Picture
from sluice.evaluator.report.picture import INK, label, legend, legend_columns, picture

Points = Sequence[tuple[float, float | None]]  # None: there is no value, and the line has a gap

_OVER_TIME, _BY_LOAD = (5.6, 2.0), (6.4, 3.6)  # inches; the former is the height of the axes alone
_LEFT, _RIGHT, _BELOW, _LEGEND = 0.7, 0.15, 0.5, 0.24  # inches, the same for all: equal times stand above each other


def over_time(
    title: str,
    y: str,
    series: Mapping[str, Points],
    seconds: float,
    *,
    text: str = "",
    marks: Mapping[str, Sequence[float]] | None = None,
    zero: bool = True,
) -> Picture:
    """Lines over the seconds of a run, from its start to `seconds`; pictures of one run have the same axis.

    `marks` are moments by what happened, such as that a process was killed. Without `zero` the axis begins where the
    values do. A line without values keeps its place among the colours, and is not named.
    """
    width, height = _OVER_TIME
    names = [*series, *(marks or {})]
    above = _LEGEND * max(1, -(-len(names) // legend_columns(names)))
    inches = (width, height + _BELOW + above)

    def draw(axes: Any) -> None:
        axes.figure.set_layout_engine(None)
        axes.figure.subplots_adjust(_LEFT / width, _BELOW / inches[1], 1 - _RIGHT / width, 1 - above / inches[1])
        for name, points in series.items():
            drawn = any(value is not None for _, value in points)
            axes.plot(*_columns(points), linewidth=1.5, label=label(name) if drawn else None)
        for name, moments in (marks or {}).items():
            for place, moment in enumerate(moments):
                line_label = None if place else label(name)  # named once
                axes.axvline(moment, color=INK, linewidth=1, linestyle=":", label=line_label)
        axes.set(xlim=(0, max(seconds, 1)), xlabel="seconds", ylabel=y)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,g}")
        if zero:
            highest = max((value or 0 for points in series.values() for _, value in points), default=0)
            axes.set_ylim(0, 1.08 * highest or 1)
        legend(axes)

    return Picture(title, picture(title, inches, draw), text)


def by_load(
    title: str,
    x: str,
    series: Mapping[str, Points],
    *,
    limit_ms: float | None = None,
    text: str = "",
) -> Picture:
    """Milliseconds, on a logarithmic axis, over the load that was offered; `limit_ms` is drawn across."""

    def draw(axes: Any) -> None:
        for name, points in series.items():
            axes.plot(*_columns(points), "o-", markersize=4, linewidth=1.5, label=label(name))
        if limit_ms is not None:
            axes.axhline(limit_ms, color=INK, linewidth=1, linestyle="--", label=f"limit, {limit_ms:g} ms")
        axes.set(xlabel=x)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:,g}")
        in_milliseconds(axes)
        legend(axes)

    return Picture(title, picture(title, _BY_LOAD, draw), text)


def in_milliseconds(axes: Any) -> None:
    """The upright axis is logarithmic, and has numbers also where it spans less than a power of ten."""
    axes.set(yscale="log", ylabel="milliseconds")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [math.nan if y is None else y for _, y in points]
