"""Draws a document's plots as SVG that is put into a page: its text is the page's, its colours are the page's styles.

It does not know what is drawn. No label is read as mathematics or markup.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from sluice.evaluator.document import Bars, Lines, Matrix

_INK, _FAINT = "#010203", "#040506"  # no other colour is these: the page's text and its fine lines
SERIES = ("#2a78b5", "#d1761f", "#3f9150", "#a4508b", "#8a6d3b", "#5b6ec4")
_STYLE: Any = {
    "svg.hashsalt": "sluice", "svg.fonttype": "none", "text.parse_math": False, "font.size": 10,
    "font.family": "sans-serif", "axes.edgecolor": _FAINT, "axes.labelcolor": _INK, "text.color": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "grid.color": _FAINT, "grid.alpha": 0.35, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "axes.prop_cycle": cycler(color=SERIES), "axes.unicode_minus": True,
}  # fmt: skip
_FINER = re.compile(r"(\d\.\d\d)\d+")  # than a hundredth of a point
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9.]+(e-?[0-9]+)?")
_LIGHT, _DARK_FROM = "#ffffff", 0.5  # the text of a matrix' darker cells
_NAMES_ACROSS = 12  # longer lists of names are turned


def svg(plot: Lines | Bars | Matrix) -> str:
    """The picture, an `<svg>` element without a size of its own."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 6.0 if isinstance(plot, Matrix) else 3.6), layout="constrained")
        axes = figure.subplots()
        match plot:
            case Lines():
                _lines(axes, plot)
            case Bars():
                _bars(axes, plot)
            case Matrix():
                _matrix(axes, plot)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = _FINER.sub(r"\1", _METADATA.sub("", out.getvalue()))
    drawn = drawn[drawn.index("<svg") :].replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{_attribute(plot.title)}" ', 1)


def _lines(axes: Any, plot: Lines) -> None:
    for name, points in plot.series.items():
        marker = "o" if len(points) <= 40 else ""
        axes.plot(*zip(*points, strict=True) if points else ([], []), marker=marker, markersize=4, label=_label(name))
    if plot.diagonal:
        axes.plot([0, 1], [0, 1], linestyle="--", color=_FAINT, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if plot.log_x:
        axes.set_xscale("log")
        places = sorted({x for points in plot.series.values() for x, _ in points})
        axes.set_xticks(places)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    _legend(axes, plot)


def _bars(axes: Any, plot: Bars) -> None:
    width = 0.8 / max(1, len(plot.series))
    for place, (name, heights) in enumerate(plot.series.items()):
        shift = (place - (len(plot.series) - 1) / 2) * width
        xs = [i + shift for i in range(len(heights))]
        axes.bar(xs, [math.nan if each is None else each for each in heights], width, label=_label(name))
    axes.grid(visible=False, axis="x")
    _name_bars(axes, plot.names)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    _legend(axes, plot)


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
                colour = _LIGHT if shares[y][x] > _DARK_FROM else _INK
                axes.text(x, y, f"{count:g}" if count else "", ha="center", va="center", color=colour)


def _legend(axes: Any, plot: Lines | Bars) -> None:
    """Above the picture, where it hides nothing."""
    if len(plot.series) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _label(name: str) -> str:
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves names like these out of legends


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
