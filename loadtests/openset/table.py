"""What is told of each method: a mean over seeds and its deviation, as a table for a terminal and for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from loadtests.openset.methods import CALIBRATION, FAR, NEAR, OUTLIERS, TEST, Scored, Scores
from sluice.policy import measures

REJECTED = "known_rejected_at_level_5"
HEADINGS = {
    "closed_set_accuracy": "closed-set accuracy",
    "auroc_near": "AUROC near",
    "auroc_far": "AUROC far",
    "known_rejected_at_95_unknown_rejected": "knowns wrongly rejected, 95 % of unknowns caught",
    "unknown_accepted_at_95_known_accepted": "unknowns wrongly accepted, 95 % of knowns accepted",
    "oscr": "OSCR",
    REJECTED: "knowns rejected at level 5 %",
    "microseconds": "µs added a row",
}
LEVEL = 0.05
CHOSEN_BY = "auroc_calibration"
KNOWNS = "test_knowns"
BASELINE = "top_probability"

Measured = dict[str, float]  # of one method and seed, by the keys of HEADINGS, CHOSEN_BY and KNOWNS
Runs = Mapping[str, Sequence[Measured]]  # by method, one of each seed


def measured(found: Scored) -> Measured:
    """All figures of one method. The two shares, and OSCR, are about near unknowns, the harder ones."""
    known, near = found.parts[TEST], found.parts[NEAR]
    reached = measures.measured(known, found.right, near)
    return {
        "closed_set_accuracy": float(found.right.mean()),
        "auroc_near": reached.auroc,
        "auroc_far": measures.auroc(known, found.parts[FAR]),
        "known_rejected_at_95_unknown_rejected": reached.known_rejected_at_95_unknown_rejected,
        "unknown_accepted_at_95_known_accepted": reached.unknown_accepted_at_95_known_accepted,
        "oscr": reached.oscr,
        REJECTED: _rejected(found.parts[CALIBRATION], known, LEVEL),
        "microseconds": found.microseconds,
        CHOSEN_BY: measures.auroc(found.parts[CALIBRATION], found.parts[OUTLIERS]),
        KNOWNS: len(known),
    }


def _rejected(calibration: Scores, scores: Scores, level: float) -> float:
    """The share with a conformal p-value up to the level (Vovk et al. 2005)."""
    above = len(calibration) - np.searchsorted(np.sort(calibration), scores, "left")
    return float(((1 + above) / (len(calibration) + 1) <= level).mean())


def chosen(runs: Runs) -> str:
    """The default method: it tells the calibration's knowns and outliers apart best, by the mean of the seeds."""
    return max(runs, key=lambda method: np.mean([each[CHOSEN_BY] for each in runs[method]]))


def table(title: str, runs: Runs) -> Table:
    """One line for each method; the default is bold."""
    drawn = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    drawn.add_column("")
    for heading in HEADINGS.values():
        drawn.add_column(heading, justify="right")
    default = chosen(runs)
    for method, each in runs.items():
        style = "bold" if method == default else ""
        drawn.add_row(*(Text(cell, style) for cell in (method, *_cells(each))))
    return drawn


def markdown(runs: Runs) -> str:
    """The same for a page."""
    default = chosen(runs)
    lines = [f"| method | {' | '.join(HEADINGS.values())} |", "|---" * (len(HEADINGS) + 1) + "|"]
    for method, each in runs.items():
        name = f"**{method}**" if method == default else method
        lines.append(f"| {name} | {' | '.join(_cells(each))} |")
    return "\n".join(lines)


def _cells(seeds: Sequence[Measured]) -> list[str]:
    return [_cell(key, np.array([each[key] for each in seeds])) for key in HEADINGS]


def _cell(key: str, values: Any) -> str:
    places = 1 if key == "microseconds" else 3
    deviation = f" ± {values.std(ddof=1):.{places}f}" if len(values) > 1 else ""
    return f"{values.mean():.{places}f}{deviation}"
