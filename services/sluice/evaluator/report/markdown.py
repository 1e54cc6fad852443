"""A document as Markdown. Whatever comes from data or models is escaped, so that it cannot become markup."""

import re
from collections.abc import Iterable, Iterator, Sequence

from sluice.evaluator.document import Bars, Cell, Document, Lines, Matrix, Section, Table
from sluice.evaluator.report import summary
from sluice.evaluator.report.numbers import duration, value, words

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_POINTS = 12  # of a curve, at most: who wants more looks at the picture


def markdown(document: Document) -> str:
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {_escaped(document.model)} version {document.version}: {_escaped(document.task.replace('_', ' '))}"
    yield ""
    if document.summary:
        yield from (_escaped(document.summary), "")
    if said := summary.verdict(document):
        yield from (f"**{_escaped(said)}**", "")
    data = document.data
    yield f"{data.rows:,} rows of {_escaped(data.source)}, SHA-256 {data.sha256[:16]}…"
    run = document.run
    yield f"Measured {run.began_at} in {duration(run.seconds)}, {value(run.rows_per_s)} rows/s."
    yield ""
    for note in document.notes:
        yield from (f"> {_escaped(note)}", "")
    for section in (summary.metrics(document), *summary.sections(document)):
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield f"## {_escaped(section.title)}"
    yield ""
    if section.text:
        yield from (_escaped(section.text), "")
    match section:
        case Table():
            yield from _table([*map(words, section.columns)], section.rows)
        case Matrix():
            named = zip(section.rows, section.counts, strict=True)
            yield from _table(("right \\ answered", *section.columns), [(name, *counts) for name, counts in named])
        case Bars():
            columns: list[Sequence[Cell]] = [section.names, *section.series.values()]
            rows: list[tuple[Cell, ...]] = [*zip(*columns, strict=True)]
            yield from _table((section.x, *section.series), rows)
        case Lines():
            for name, points in section.series.items():
                step = max(1, -(-len(points) // _POINTS))
                yield from _table((section.x, name), points[::step])
    yield ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    yield _row(columns)
    yield _row(["---"] * len(columns), raw=True)
    yield from map(_row, rows)


def _row(cells: Sequence[Cell], *, raw: bool = False) -> str:
    texts = [str(cell) if raw else _escaped(value(cell)) for cell in cells]
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
