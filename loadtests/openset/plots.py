"""Draws how well each method tells unknown from known, and how scores lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from loadtests.openset.methods import CALIBRATION, FAR, NEAR, TEST, Scored
from loadtests.openset.table import Runs, chosen
from sluice.policy import measures

_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "font.size": 10}
_COLOURS = {TEST: "tab:blue", NEAR: "tab:orange", FAR: "tab:red"}
_NAMES = {TEST: "known", NEAR: "near unknown", FAR: "far unknown"}
_BINS = 50


def draw_methods(name: str, runs: Runs, file: Path) -> None:
    """AUROC near and far of every method, one point a seed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1 + 0.32 * len(runs)), layout="constrained")
        axes = figure.subplots()
        for line, seeds in enumerate(runs.values()):
            for part, key, offset in ((NEAR, "auroc_near", 0.15), (FAR, "auroc_far", -0.15)):
                values = [each[key] for each in seeds]
                axes.plot(values, [-line + offset] * len(values), "o", color=_COLOURS[part], alpha=0.6, markersize=5)
        default = chosen(runs)
        labels = [f"{method}  (default)" if method == default else method for method in runs]
        axes.set_yticks([-line for line in range(len(runs))], labels)
        for part in (NEAR, FAR):
            axes.plot([], [], "o", color=_COLOURS[part], label=_NAMES[part])
        axes.set(title=f"{name}: how well each method tells unknown from known", xlabel="AUROC, one point a seed")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower left")
        figure.savefig(file, dpi=110)


def draw_scores(name: str, found: Mapping[str, Scored], methods: Sequence[str], file: Path) -> None:
    """For each of these methods, score histograms with the threshold at level 5 %, and ROC curves; one seed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.2 * len(methods)), layout="constrained")
        rows = figure.subplots(len(methods), 2, squeeze=False)
        for method, (left, right) in zip(methods, rows, strict=True):
            parts = found[method].parts
            every = np.concatenate([parts[part] for part in _NAMES])
            bins = np.linspace(*np.quantile(every, (0.001, 0.999)), _BINS)
            for part, label in _NAMES.items():
                weights = np.full(len(parts[part]), 1 / len(parts[part]))
                left.hist(parts[part], bins, weights=weights, color=_COLOURS[part], alpha=0.5, label=label)
            left.axvline(np.quantile(parts[CALIBRATION], 0.95), color="black", linewidth=1, label="level 5 %")
            left.set(title=f"{name}: {method}", xlabel="score, larger = stranger", ylabel="share of pictures")
            for part in (NEAR, FAR):
                shares = measures.roc(parts[TEST], parts[part])
                right.plot(*shares, color=_COLOURS[part], label=_NAMES[part])
            right.set(
                title="ROC", xlabel="knowns rejected", ylabel="unknowns rejected", xlim=(0, 0.3), ylim=(0.5, 1.01)
            )
            left.legend(frameon=False)
            right.legend(frameon=False)
        figure.savefig(file, dpi=110)
