"""Says what a calibration found: a few lines and a table for a terminal.

It does not know where rows came from.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from sluice.cli.calibrate.fit import Fitted
from sluice.policy.errors import SluiceError
from sluice.policy.recognition import threshold_of

_WIDEST = 110  # columns; wider text is hard to read


def show(fitted: Fitted, file: Path, console: Console) -> None:
    """Print the table of methods, what became the default and why, and where the calibration lies."""
    console.width = min(console.width, _WIDEST)
    made = fitted.calibration
    console.print(
        f"{made.model} version {made.version}: {made.rows:,} known rows, {fitted.accuracy:.2%} of them answered right\n"
        f"Temperature {made.temperature:.3g}; level {made.level:g}: at most this share of known rows is rejected\n"
    )
    console.print(_table(fitted))
    if fitted.measures:
        console.print(
            "\nUnknown accepted: with a threshold that accepts 95 % of known rows. Known rejected: with one that "
            "rejects 95 % of unknown rows. Both are called FPR at 95 % TPR."
        )
    for method, reason in fitted.left_out.items():
        console.print(f"Left out: {method}. {reason}")
    why = (
        "the greatest AUROC"
        if fitted.measures
        else "which is best in published comparisons; with --unknown DATA, your own rows decide"
    )
    console.print(f"\nDefault method (*): {made.default_method}, {why}\nWritten: {file}", soft_wrap=True)


def _table(fitted: Fitted) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    compared = ("AUROC", "unknown\naccepted", "known\nrejected", "OSCR") if fitted.measures else ()
    for heading in ("rows", "threshold", *compared):
        table.add_column(heading, justify="right")
    methods = fitted.measures or fitted.calibration.methods
    for method in methods:
        mark = " *" if method == fitted.calibration.default_method else ""
        table.add_row(f"{method}{mark}", *_numbers(fitted, method), *_measures(fitted, method))
    return table


def _numbers(fitted: Fitted, method: str) -> tuple[str, str]:
    made = fitted.calibration
    calibrated = made.methods.get(method)
    if calibrated is None:
        return "", "each its own"
    try:
        threshold = threshold_of(made, method, made.level)
    except SluiceError:
        return f"{len(calibrated.scores):,}", "too few rows"
    return f"{len(calibrated.scores):,}", "by class" if threshold is None else f"{threshold:.4g}"


def _measures(fitted: Fitted, method: str) -> tuple[str, ...]:
    found = fitted.measures.get(method)
    if found is None:
        return ()
    accepted, rejected = found.unknown_accepted_at_95_known_accepted, found.known_rejected_at_95_unknown_rejected
    return f"{found.auroc:.4f}", f"{accepted:.1%}", f"{rejected:.1%}", f"{found.oscr:.4f}"
