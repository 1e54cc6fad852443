"""Draws the scores of known and unknown rows, method by method, and the ROC of all.

It does not know how scores are made. Imported when a picture is asked for: it needs matplotlib.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sluice.cli.calibrate.fit import Fitted
from sluice.policy.errors import SluiceError
from sluice.policy.measures import roc
from sluice.policy.recognition import threshold_of

_BINS = 40
_ACROSS = 3
_COLORS, _DASHES = 10, ("-", "--", ":")  # so that more methods than colours are told apart
_SHOWN = (0.5, 99.5)  # percent of the scores: a few that are far out would hide the rest


def draw(fitted: Fitted, file: Path) -> None:
    """A histogram for each method, and the ROC where there are unknown rows, written to `file`; its folder is made."""
    places = len(fitted.known) + bool(fitted.unknown)
    down = -(-places // _ACROSS)
    with mpl.rc_context({"svg.hashsalt": "sluice"}):
        figure = Figure(figsize=(5 * _ACROSS, 3.5 * down), layout="constrained")
        all_axes = figure.subplots(down, _ACROSS, squeeze=False).ravel()
        for method, axes in zip(fitted.known, all_axes, strict=False):
            _draw_scores(axes, fitted, method)
        if fitted.unknown:
            _draw_roc(all_axes[places - 1], fitted)
        for axes in all_axes[places:]:
            axes.set_axis_off()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)


def _draw_scores(axes: Any, fitted: Fitted, method: str) -> None:
    drawn = {"known": fitted.known[method]}
    if fitted.unknown:
        drawn["unknown"] = fitted.unknown[method]
    least, greatest = np.percentile(np.concatenate(list(drawn.values())), _SHOWN)
    edges = np.linspace(least, greatest if greatest > least else least + 1, _BINS + 1)
    for (label, scores), color in zip(drawn.items(), ("tab:blue", "tab:orange"), strict=False):
        shares = np.full(len(scores), 100 / len(scores))
        axes.hist(np.clip(scores, edges[0], edges[-1]), edges, weights=shares, alpha=0.6, color=color, label=label)
    threshold = _threshold(fitted, method)
    if threshold is not None:
        axes.axvline(threshold, color="black", linewidth=1, label=f"threshold at {fitted.calibration.level:g}")
    axes.set(xlabel="score", ylabel="% of rows")
    axes.set_title(method, fontsize=10)
    axes.legend(fontsize=8)


def _threshold(fitted: Fitted, method: str) -> float | None:
    try:
        return threshold_of(fitted.calibration, method, fitted.calibration.level)
    except SluiceError:
        return None


def _draw_roc(axes: Any, fitted: Fitted) -> None:
    for number, method in enumerate(fitted.known):
        known, unknown = roc(fitted.known[method], fitted.unknown[method])
        dashes = _DASHES[number // _COLORS % len(_DASHES)]
        axes.plot(100 * known, 100 * unknown, dashes, linewidth=1, color=f"C{number % _COLORS}", label=method)
    axes.axvline(100 * fitted.calibration.level, color="black", linewidth=0.5)
    axes.set(xlabel="known rows rejected, %", ylabel="unknown rows rejected, %")
    axes.set_title("ROC", fontsize=10)
    axes.legend(fontsize=7)
