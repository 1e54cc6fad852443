"""Finds the lengths that `sluice buckets` is asked about, at a gateway or in a file, and prints what padding costs."""

import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sluice.cli.buckets.length_files import NAMELESS, Counts, read_lengths
from sluice.cli.buckets.padding import Ragged
from sluice.cli.buckets.report import report
from sluice.cli.explain.command import get
from sluice.cli.explain.explanation import WRONG_USAGE, CannotExplain

HERE = "http://127.0.0.1:8080"
_WIDEST = 100  # columns; wider text is hard to read
_PICTURES = (".png", ".svg")
_NO_GATEWAY = "With --lengths FILE and without --url none is needed."


def run(model: str, url: str | None, lengths: Path | None, plot: Path | None) -> None:
    """Print what padding costs on each ragged axis of `model`, and what other bounds would save.

    Without `url` a file of lengths is looked at alone, and the bounds of no gateway.

    Raises:
        CannotExplain: no lengths are known, or the picture cannot be drawn.
    """
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise CannotExplain(f"--plot: expected a file that ends in .png or .svg, got {plot}", WRONG_USAGE)
    columns = read_lengths(lengths) if lengths else None
    if columns is not None and url is None:
        axes = [Ragged("", name, counts) for name, counts in columns.items()]
    else:
        axes = _served(model, (url or HERE).rstrip("/"))
        if columns is not None:
            axes = [_with(columns, each, axes, lengths) for each in axes]
    if not any(each.counts for each in axes):
        raise CannotExplain(
            f"{model}: nothing was observed yet; lengths are counted when sequences are sent (docs/sequences.md). Send "
            "some, or give lengths with --lengths FILE"
        )
    if plot is not None:
        _draw(model, axes, plot)
    show(model, axes, Console(highlight=False, emoji=False))


def _draw(model: str, axes: list[Ragged], plot: Path) -> None:
    try:
        from sluice.cli.buckets.picture import draw

        draw(model, [each for each in axes if each.counts], plot)
    except ImportError as error:
        raise CannotExplain(f"--plot: expected matplotlib to be installed; {error}") from None
    except OSError as error:
        raise CannotExplain(f"--plot: {plot} cannot be written; {error}") from None


def show(model: str, axes: list[Ragged], console: Console) -> None:
    """Print a section for each axis, no wider than reads well."""
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        for ragged in axes:
            for part in report(model, ragged, alone=len(axes) == 1):
                console.print(part, soft_wrap=isinstance(part, Text) and part.no_wrap)
            console.print()
    for line in captured.get().rstrip("\n").splitlines():
        console.file.write(f"{line.rstrip()}\n")


def _served(model: str, url: str) -> list[Ragged]:
    address = f"{url}/v1/models/{urllib.parse.quote(model, safe='')}/buckets"
    answer = get(address, _NO_GATEWAY)
    try:
        axes = [
            _ragged(signature, axis, told)
            for signature, axes in answer["signatures"].items()
            for axis, told in axes.items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CannotExplain(f"{address}: expected a gateway's answer, with bounds and lengths; got another") from None
    if not axes:
        raise CannotExplain(
            f"{model}: expected a model that takes sequences; no signature of its contract names a ragged axis, so "
            "nothing is padded"
        )
    return axes


def _ragged(signature: str, axis: str, told: Mapping[str, Any]) -> Ragged:
    counts = {int(length): float(count) for length, count in told["lengths"].items()}
    return Ragged(signature, axis, counts, tuple(map(int, told["bounds"])), bool(told["learned"]))


def _with(columns: Mapping[str, Counts], ragged: Ragged, axes: list[Ragged], file: Path | None) -> Ragged:
    """The axis with a file's lengths: of the column of its name, or of the only column where it is the only axis."""
    names = {each.axis for each in axes}
    only = len(columns) == len(names) == 1
    if not only and ragged.axis not in columns:
        given = ", ".join(columns) if NAMELESS not in columns else "one without a name"
        raise CannotExplain(
            f"{file}: expected a column for each ragged axis of the model, {', '.join(sorted(names))}; got {given}"
        )
    counts = next(iter(columns.values())) if only else columns[ragged.axis]
    return replace(ragged, counts=counts)
