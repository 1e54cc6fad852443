"""Draws a picture as SVG that is put into a page: its text is the page's, its colours are the page's styles.

It does not know what is drawn. No label is read as mathematics or markup.
"""

import io
import re
from collections.abc import Callable, Collection
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

INK, FAINT = "#010203", "#040506"  # no other colour is these: the page's text and its fine lines
SERIES = ("#2a78b5", "#d1761f", "#3f9150", "#a4508b", "#8a6d3b", "#5b6ec4")
_STYLE: Any = {
    "svg.hashsalt": "sluice", "svg.fonttype": "none", "text.parse_math": False, "font.size": 10,
    "font.family": "sans-serif", "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "grid.alpha": 0.35, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "axes.prop_cycle": cycler(color=SERIES), "axes.unicode_minus": True,
}  # fmt: skip
_ALONE = {"var(--ink)": "#6b7480", "var(--faint)": "#a9b1ba"}  # that can be read in the light and in the dark
_LEGEND_LETTERS = 48  # of its names, side by side
_FINER = re.compile(r"(\d\.\d\d)\d+")  # than a hundredth of a point
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def picture(title: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """What `draw` draws on the axes it is given, as an `<svg>` element that has proportions and no size."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = _FINER.sub(r"\1", _METADATA.sub("", out.getvalue()))
    drawn = drawn[drawn.index("<svg") :].replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{_attribute(title)}" ', 1)


def alone(drawn: str) -> str:
    """A picture that is a file of its own and not part of a page."""
    for style, colour in _ALONE.items():
        drawn = drawn.replace(style, colour)
    return drawn


def legend(axes: Any) -> None:
    """Above the picture, where it hides nothing; one line alone needs none."""
    names = axes.get_legend_handles_labels()[1]
    if len(names) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=legend_columns(names), borderaxespad=0)


def legend_columns(names: Collection[str]) -> int:
    """How many names stand side by side, so that they are no broader than the picture."""
    return max(1, min(3, _LEGEND_LETTERS // max([1, *map(len, names)])))


def label(name: str) -> str:
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves names like these out of legends


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
