"""A document as one HTML page: no network, no scripts, readable in the dark, in the light, and on paper."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sluice.evaluator.document import Document, Section, Table
from sluice.evaluator.report import summary
from sluice.evaluator.report.numbers import duration, value, words
from sluice.evaluator.report.plots import svg


def html(document: Document) -> str:
    page: str = _page().render(
        document=document,
        task=document.task.replace("_", " "),
        verdict=summary.verdict(document),
        sections=[_shown(each) for each in (summary.metrics(document), *summary.sections(document))],
        seconds=duration(document.run.seconds),
        rate=value(document.run.rows_per_s),
    )
    return page


def _shown(section: Section) -> dict[str, Any]:
    shown = {"title": section.title, "text": section.text}
    if isinstance(section, Table):
        rows = [[(value(cell), _is_number(cell)) for cell in row] for row in section.rows]
        return {**shown, "columns": [*map(words, section.columns)], "rows": rows}
    return {**shown, "picture": Markup(svg(section))}  # noqa: S704 - matplotlib has escaped its texts


def _is_number(cell: object) -> bool:
    """Whether it stands at the right of its column: a number, or one that has been written for people."""
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell.lstrip("+-")[:1].isdigit())


@cache
def _page() -> Any:
    loader = PackageLoader("sluice.evaluator.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
