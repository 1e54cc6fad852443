"""Draws the lengths of every ragged axis, and the padding that each number of buckets leaves.

It does not know how bounds are found. Imported when a picture is asked for: it needs matplotlib.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from sluice.cli.buckets.padding import MOST_BUCKETS, Padding, Ragged, worthwhile
from sluice.cli.buckets.report import title

_BINS = 60


def draw(model: str, axes: list[Ragged], file: Path) -> None:
    """A row of two diagrams for each axis, which has lengths, written to `file`; its folder is made."""
    with mpl.rc_context({"svg.hashsalt": "sluice"}):
        figure = Figure(figsize=(12, 4 * len(axes)), layout="constrained")
        for ragged, (left, right) in zip(axes, figure.subplots(len(axes), 2, squeeze=False), strict=True):
            best = ragged.best()
            _draw_lengths(left, ragged, worthwhile(best))
            left.set_title(title(model, ragged), fontsize=10)
            _draw_curve(right, ragged, best[:MOST_BUCKETS])
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)


def _draw_lengths(axes: Any, ragged: Ragged, chosen: Padding) -> None:
    lengths, counts = zip(*sorted(ragged.counts.items()), strict=True)
    longest = lengths[-1]
    bins = range(0, longest + 1, max(1, longest // _BINS))
    axes.hist(lengths, bins=[each + 0.5 for each in (-1, *bins, longest + bins.step)], weights=counts, color="tab:blue")
    for bound in chosen.bounds:
        if bound <= longest:
            axes.axvline(bound + 0.5, color="tab:orange", linewidth=1)
    axes.plot([], [], color="tab:orange", label=f"best bounds of {len(chosen.bounds)}")
    axes.set(xlabel="length", ylabel="rows")
    axes.legend(fontsize=9)


def _draw_curve(axes: Any, ragged: Ragged, best: list[Padding]) -> None:
    axes.plot(
        [len(each.bounds) for each in best], [100 * each.share for each in best], "o-", color="tab:orange",
        label="best bounds",
    )  # fmt: skip
    if ragged.bounds:
        now = ragged.padding()
        axes.plot(len(now.bounds), 100 * now.share, "s", color="tab:blue", label="bounds now")
    axes.set(xlabel="buckets", ylabel="padding, % of all elements")
    axes.set_title("Padding by number of buckets", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(1, 1 + max(len(best), len(ragged.bounds))))
    axes.legend(fontsize=9)
