"""Text for a terminal, as every command writes it: paragraphs, tables, lines to paste."""

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_WIDEST = 100  # columns; wider text is hard to read


def write(parts: Iterable[RenderableType], console: Console) -> None:
    """Print, no wider than reads well, and without blanks at the ends of lines."""
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    for line in captured.get().rstrip("\n").splitlines():
        console.file.write(f"{line.rstrip()}\n")


def heading(words: str) -> Text:
    return Text(words, style="bold")


def paragraph(words: str) -> Padding:
    return indented(Text(words))


def code(words: str) -> Text:
    """Lines to paste, which are never wrapped."""
    return Text("\n".join(f"    {line}" for line in words.splitlines()), style="cyan", no_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], whole: int | None = None) -> Padding:
    """A table; the cells of column `whole`, counted from 0, are not wrapped."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="italic")
    for i, each in enumerate(headings):
        grid.add_column(each, no_wrap=i == whole)
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    return indented(grid, 4)


def indented(body: RenderableType, columns: int = 2) -> Padding:
    return Padding(body, (0, 0, 0, columns))


def counted(count: int, noun: str) -> str:
    plural = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{plural}"
