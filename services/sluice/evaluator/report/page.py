"""A page: a verdict, facts, and sections of tables and pictures; no network, no scripts, readable in dark and light."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sluice.evaluator.document import Table
from sluice.evaluator.report.numbers import value, words


@dataclass(frozen=True, slots=True)
class Picture:
    """An `<svg>` element, as `picture` draws it, and what it shows in a sentence or two."""

    title: str
    svg: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures that are looked at together, side by side where the page is broad enough."""

    title: str
    pictures: Sequence[Picture]
    text: str = ""


Shown = Table | Picture | Gallery


def page(
    title: str,
    summary: str,
    sections: Sequence[Shown],
    *,
    verdict: str = "",
    failed: bool = False,
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """One HTML file. `files` are links to what lies beside it, by its relative address."""
    text: str = _template().render(
        title=title, summary=summary, sections=[*map(_shown, sections)],
        verdict=verdict, failed=failed, facts=facts, notes=notes, files=files or {},
    )  # fmt: skip
    return text


def _shown(section: Shown) -> dict[str, Any]:
    shown = {"title": section.title, "text": section.text}
    match section:
        case Table():
            rows = [[(value(cell), _is_number(cell)) for cell in row] for row in section.rows]
            return {**shown, "columns": [*map(words, section.columns)], "rows": rows}
        case Picture():
            return {**shown, "picture": Markup(section.svg)}  # noqa: S704 - matplotlib has escaped its texts
        case Gallery():
            return {**shown, "gallery": [*map(_shown, section.pictures)]}


def _is_number(cell: object) -> bool:
    """Whether it stands at the right of its column: a number, or one that has been written for people."""
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell.lstrip("+-")[:1].isdigit())


@cache
def _template() -> Any:
    loader = PackageLoader("sluice.evaluator.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
