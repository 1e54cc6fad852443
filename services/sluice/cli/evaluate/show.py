"""Prints a document's tables on a terminal; curves and large matrices are for the report's files."""

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from sluice.cli.text import heading, indented, paragraph, table, write
from sluice.evaluator.document import Document, Section, Table
from sluice.evaluator.report import numbers, summary

_MOST_ROWS = 24
_MOST_COLUMNS = 8


def show(document: Document, console: Console) -> None:
    write(_parts(document), console)


def _parts(document: Document) -> Iterator[RenderableType]:
    task = document.task.replace("_", " ")
    yield heading(f"{document.model} version {document.version}: {task}")
    if document.summary:
        yield paragraph(document.summary)
    data, run = document.data, document.run
    yield paragraph(
        f"{data.rows:,} rows of {data.source} (SHA-256 {data.sha256[:12]}…) in {numbers.duration(run.seconds)}"
    )
    for note in document.notes:
        yield paragraph(note)
    for section in (summary.metrics(document), *summary.sections(document)):
        if isinstance(section, Table) and len(section.columns) <= _MOST_COLUMNS:
            yield from _table(section)
    if said := summary.verdict(document):
        yield from (Text(), paragraph(said))


def _table(section: Section) -> Iterator[RenderableType]:
    assert isinstance(section, Table)
    yield from (Text(), heading(section.title))
    if section.text:
        yield paragraph(section.text)
    yield table(
        [*map(numbers.words, section.columns)],
        [[numbers.value(cell) for cell in row] for row in section.rows[:_MOST_ROWS]],
    )
    if len(section.rows) > _MOST_ROWS:
        yield indented(Text(f"… and {len(section.rows) - _MOST_ROWS} more: --report FILE.html"), 4)
