"""Says what padding costs on one axis, and what to write where: numbers to text, bars and a table.

It does not know where the lengths come from.
"""

import json
import sys
from collections.abc import Iterator

import yaml
from rich.console import RenderableType
from rich.padding import Padding as Indented
from rich.table import Table
from rich.text import Text

from sluice.cli.buckets.padding import MOST_BUCKETS, Padding, Ragged, grouped, savings, worthwhile
from sluice.cli.explain.grouping import counted

_BAR = 40  # columns
_EIGHTHS = " ▏▎▍▌▋▊▉"
_TABLE = (
    "The best bounds of each number of buckets, padding's share of all elements and of the real ones, and how many "
    "elements one bucket more saves:"
)
_EMPTY = "No lengths were observed here yet; the bounds are {}."


def report(model: str, ragged: Ragged, *, alone: bool) -> Iterator[RenderableType]:
    """The section of one axis; unless it is `alone`, it says that the others are left out of account."""
    yield Text(heading(model, ragged), style="bold")
    if not ragged.counts:
        yield _indented(Text(_EMPTY.format(_listed(ragged.bounds))))
        return
    yield _indented(_histogram(ragged))
    yield Text()
    for sentence in _now(ragged):
        yield _indented(Text(sentence))
    yield Text()
    best = ragged.best()
    yield _indented(Text(_TABLE))
    yield _indented(_table(best))
    yield Text()
    yield _indented(Text(_advice(best, ragged, alone=alone)))
    yield from _written(model, ragged, worthwhile(best))


def heading(model: str, ragged: Ragged) -> str:
    """Such as `words, serving_default, axis word: 1,024 rows, 1 to 37 long`."""
    names = [model, ragged.signature, f"axis {ragged.axis}" if ragged.axis else ""]
    where = ", ".join(filter(None, names))
    if not ragged.counts:
        return where
    return f"{where}: {number(ragged.rows)} rows, {min(ragged.counts)} to {max(ragged.counts)} long"


def number(value: float) -> str:
    """With a comma after the thousands; counts that have faded are not whole."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:,.1f}"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _listed(bounds: tuple[int, ...]) -> str:
    return ", ".join(map(str, bounds))


def _indented(body: RenderableType) -> Indented:
    return Indented(body, (0, 0, 0, 2))


def _grid(*headings: str, last: str) -> Table:
    """Numbers to the right, and a `last` column to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="italic")
    for name in headings:
        table.add_column(name, justify="right")
    table.add_column(last)
    return table


def _histogram(ragged: Ragged) -> Table:
    groups = grouped(ragged.counts)
    most = max(count for _, _, count in groups)
    table = _grid("length", "rows", last="")
    for first, last, count in groups:
        lengths = f"{first}" if first == last else f"{first}-{last}"
        table.add_row(lengths, number(count), _bar(count / most) if count else "")
    return table


def _bar(share: float) -> str:
    whole, eighths = divmod(max(round(share * _BAR * 8), 1), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def _now(ragged: Ragged) -> Iterator[str]:
    if not ragged.bounds:
        yield "The bounds are not known without a gateway: --url URL asks one."
        return
    now = ragged.padding()
    come = "learned from recent lengths" if ragged.learned else "given"
    yield (
        f"The bounds now, {come}: {_listed(ragged.bounds)}. Padding is {percent(now.share)} of all elements, "
        f"{percent(now.relative)} of the real ones ({number(now.elements)} of padding, {number(now.real)} real)."
    )
    if ragged.too_long:
        yield f"{number(ragged.too_long)} rows are longer than {ragged.bounds[-1]}: they are refused now."


def _table(best: list[Padding]) -> Table:
    saved = savings(best)
    table = _grid("buckets", "of all", "of real", "one more saves", "of real", last="bounds")
    for i, padding in enumerate(best[:MOST_BUCKETS]):
        more = (number(saved[i]), percent(padding.per_real(saved[i]))) if i < len(saved) else ("", "")
        table.add_row(f"{i + 1}", percent(padding.share), percent(padding.relative), *more, _listed(padding.bounds))
    return table


def _advice(best: list[Padding], ragged: Ragged, *, alone: bool) -> str:
    chosen, longest = worthwhile(best), max(ragged.counts)
    buckets, saved = len(chosen.bounds), savings(best)
    cost = f"With {counted(buckets, 'bucket')} padding is {percent(chosen.share)} of all elements"
    if buckets > len(saved):
        sentences = [f"{cost}: every length has its own."]
    else:
        gained = percent(chosen.per_real(saved[buckets - 1]))
        sentences = [f"{cost}; one more would save {gained} of the real ones, and make batches smaller."]
    if chosen.bounds[-1] > longest:
        sentences.append(f"The last bound, {chosen.bounds[-1]}, is the longest sequence accepted; {longest} came.")
    if not alone:
        sentences.append("Each axis is looked at as if it were the only one.")
    if ragged.learned:
        sentences.append(
            f"Nothing has to be written: {len(ragged.bounds)} bounds (the setting `buckets`) are learned from what "
            "comes. Bounds that are written stay as they are."
        )
    return " ".join(sentences)


def _written(model: str, ragged: Ragged, chosen: Padding) -> Iterator[RenderableType]:
    """What to paste; it is never wrapped."""
    buckets = {ragged.axis or "AXIS": list(chosen.bounds)}
    where = f", in the signature {ragged.signature}" if ragged.signature else ""
    yield _indented(Text("To fix them, write in the settings file, which goes before the contract,"))
    written = yaml.safe_dump({"bucket_bounds": {model: buckets}}, default_flow_style=None, width=sys.maxsize)
    for line in written.splitlines():
        yield Text(f"      {line}", no_wrap=True)
    yield _indented(Text(f"or in the contract{where},"))
    yield Text(f'      "buckets": {json.dumps(buckets)}', no_wrap=True)
