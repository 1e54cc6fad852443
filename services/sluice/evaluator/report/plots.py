"""The plots of a document as pictures of a page."""

import math
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import ScalarFormatter

from sluice.evaluator.document import Bars, Lines, Matrix
from sluice.evaluator.report.picture import FAINT, INK, SERIES, label, legend, picture

_SIZE, _SQUARE = (6.4, 3.6), (6.4, 6.0)  # inches
_NUMBER = re.compile(r"-?[0-9.]+(e-?[0-9]+)?")
_LIGHT, _DARK_FROM = "#ffffff", 0.5  # the text of a matrix' darker cells
_NAMES_ACROSS = 12  # longer lists of names are turned


def svg(plot: Lines | Bars | Matrix) -> str:
    """The picture, an `<svg>` element without a size of its own."""
    match plot:
        case Lines():
            return picture(plot.title, _SIZE, lambda axes: _lines(axes, plot))
        case Bars():
            return picture(plot.title, _SIZE, lambda axes: _bars(axes, plot))
        case Matrix():
            return picture(plot.title, _SQUARE, lambda axes: _matrix(axes, plot))


def _lines(axes: Any, plot: Lines) -> None:
    for name, points in plot.series.items():
        marker = "o" if len(points) <= 40 else ""
        axes.plot(*zip(*points, strict=True) if points else ([], []), marker=marker, markersize=4, label=label(name))
    if plot.diagonal:
        axes.plot([0, 1], [0, 1], linestyle="--", color=FAINT, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if plot.log_x:
        axes.set_xscale("log")
        places = sorted({x for points in plot.series.values() for x, _ in points})
        axes.set_xticks(places)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    legend(axes)


def _bars(axes: Any, plot: Bars) -> None:
    width = 0.8 / max(1, len(plot.series))
    for place, (name, heights) in enumerate(plot.series.items()):
        shift = (place - (len(plot.series) - 1) / 2) * width
        xs = [i + shift for i in range(len(heights))]
        axes.bar(xs, [math.nan if each is None else each for each in heights], width, label=label(name))
    axes.grid(visible=False, axis="x")
    _name_bars(axes, plot.names)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    legend(axes)


def _name_bars(axes: Any, names: Sequence[str]) -> None:
    """Numbers, as those of a histogram, as many as fit; of long lists of other names all, turned."""
    places, many = range(len(names)), len(names) > _NAMES_ACROSS
    if many and all(map(_NUMBER.fullmatch, names)):
        places = range(0, len(names), -(-len(names) // _NAMES_ACROSS))
        many = False
    axes.set_xticks([*places], [names[place] for place in places], rotation=45 if many else 0)


def _matrix(axes: Any, plot: Matrix) -> None:
    totals = [sum(row) or 1 for row in plot.counts]
    shares = [[count / total for count in row] for row, total in zip(plot.counts, totals, strict=True)]
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("sluice", ["#2a78b500", SERIES[0]]), vmin=0)
    axes.grid(visible=False)
    turned = 90 if len(plot.columns) > _NAMES_ACROSS else 0
    axes.set_xticks(range(len(plot.columns)), plot.columns, rotation=turned)
    axes.set_yticks(range(len(plot.rows)), plot.rows)
    axes.set(xlabel="answered", ylabel="right")
    if len(plot.rows) <= _NAMES_ACROSS:
        for y, row in enumerate(plot.counts):
            for x, count in enumerate(row):
                colour = _LIGHT if shares[y][x] > _DARK_FROM else INK
                axes.text(x, y, f"{count:g}" if count else "", ha="center", va="center", color=colour)
