"""Tables and the picture of what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from loadtests.bench.report.bars import Bar
from loadtests.embedding.cases import ADAM, ANSWER, LAZY, SIZES, SPREAD, TITLES, Case

mpl.use("Agg")

from matplotlib import pyplot as plt

_COLOURS = {ADAM: "tab:red", LAZY: "tab:blue", SPREAD: "tab:cyan", ANSWER: "tab:green"}
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "font.size": 11}


def costs(cases: Sequence[Case]) -> Table:
    """Milliseconds of each case by the size of the vocabulary."""
    table = _table("Milliseconds by words of the vocabulary: median of the rounds (least … most)")
    table.add_column("")
    for words in SIZES:
        table.add_column(f"{words:,}", justify="right", no_wrap=True)
    for name, title in TITLES.items():
        spreads = [case.spread for case in cases if case.name == name]
        table.add_row(title, *(f"{each.median:.1f} ({each.least:.1f} … {each.most:.1f})" for each in spreads))
    return table


def reached(bars: Sequence[Bar]) -> Table:
    """What was reached of each bar."""
    table = _table("Reached / asked, round by round")
    table.add_column("")
    for heading in ("reached", "least … most", "asked", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for bar in bars:
        assert bar.reached is not None
        found, verdict = bar.reached, Text("yes", "green") if bar.holds else Text("no", "red")
        spread = f"{found.least:.2f} … {found.most:.2f}"
        table.add_row(bar.title, f"{found.median:.2f}", spread, f"≤ {bar.asked}", verdict)
    return table


def accuracies(found: Mapping[str, Mapping[str, float]]) -> Table:
    """The share of right answers by kind of text, trained with either optimizer."""
    table = _table(f"Right answers on held-out texts, trained with {SIZES[1]:,} words")
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    for group in found[LAZY]:
        table.add_row(group.replace("_", " "), *(f"{100 * each[group]:.1f} %" for each in found.values()))
    return table


def draw(cases: Sequence[Case], file: Path) -> None:
    """The medians over the words, each in a band from the least to the most."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, 5.4), layout="constrained")
        for name, title in TITLES.items():
            spreads = [case.spread for case in cases if case.name == name]
            axes.plot(SIZES, [each.median for each in spreads], "o-", color=_COLOURS[name], label=title)
            band = [each.least for each in spreads], [each.most for each in spreads]
            axes.fill_between(SIZES, *band, color=_COLOURS[name], alpha=0.15)
        axes.set(title="Cost by the size of the vocabulary", xlabel="words", ylabel="milliseconds")
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(file, dpi=120)
        plt.close(figure)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
