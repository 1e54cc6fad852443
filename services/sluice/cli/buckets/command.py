"""Finds the lengths that `sluice buckets` is asked about, at a gateway or in a file, and prints what padding costs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sluice.cli.ask import GATEWAY, asking
from sluice.cli.buckets.length_files import NAMELESS, Counts, read_lengths
from sluice.cli.buckets.padding import Ragged
from sluice.cli.buckets.report import report
from sluice.cli.errors import CommandError
from sluice.cli.plot import check_plot, plotting
from sluice.cli.text import write

_NO_GATEWAY = "With --lengths FILE and without --url none is needed."


def run(model: str, url: str | None, lengths: Path | None, plot: Path | None) -> None:
    """Print what padding costs on each ragged axis of `model`, and what other bounds would save.

    Without `url` a file of lengths is looked at alone, and the bounds of no gateway.

    Raises:
        CommandError: no lengths are known, or the picture cannot be drawn.
    """
    check_plot(plot)
    columns = read_lengths(lengths) if lengths else None
    if columns is not None and url is None:
        axes = [Ragged("", name, counts) for name, counts in columns.items()]
    else:
        axes = _served(model, (url or GATEWAY).rstrip("/"))
        if columns is not None:
            axes = [_with(columns, each, axes, lengths) for each in axes]
    if not any(each.counts for each in axes):
        raise CommandError(
            f"{model}: nothing was observed yet; the gateway counts the lengths of sequences as they come. Send some, "
            "or give lengths with --lengths FILE"
        )
    if plot is not None:
        from sluice.cli.buckets.picture import draw

        with plotting(plot):
            draw(model, [each for each in axes if each.counts], plot)
    alone = len(axes) == 1
    parts = (part for each in axes for part in (*report(model, each, alone=alone), Text()))
    write(parts, Console(highlight=False, emoji=False))


def _served(model: str, url: str) -> list[Ragged]:
    with asking(url, _NO_GATEWAY) as client:
        told = client.buckets(model)
    axes = [
        Ragged(signature, name, axis.lengths, axis.bounds, axis.learned, told.chunks[signature])
        for signature, own in told.signatures.items()
        for name, axis in own.items()
    ]
    if not axes:
        raise CommandError(
            f"{model}: expected a model that takes sequences; no signature of its contract names a ragged axis, so "
            "nothing is padded"
        )
    return axes


def _with(columns: Mapping[str, Counts], ragged: Ragged, axes: list[Ragged], file: Path | None) -> Ragged:
    """The axis with a file's lengths: of the column of its name, or of the only column where it is the only axis."""
    names = {each.axis for each in axes}
    only = len(columns) == len(names) == 1
    if not only and ragged.axis not in columns:
        given = ", ".join(columns) if NAMELESS not in columns else "one without a name"
        raise CommandError(
            f"{file}: expected a column for each ragged axis of the model, {', '.join(sorted(names))}; got {given}"
        )
    counts = next(iter(columns.values())) if only else columns[ragged.axis]
    return replace(ragged, counts=counts)
