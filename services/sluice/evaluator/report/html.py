"""A document as one HTML page."""

from sluice.evaluator.document import Document, Section, Table
from sluice.evaluator.report import summary
from sluice.evaluator.report.numbers import duration, value
from sluice.evaluator.report.page import Picture, Shown, page
from sluice.evaluator.report.plots import svg


def html(document: Document) -> str:
    data, run = document.data, document.run
    return page(
        f"{document.model} version {document.version}: {document.task.replace('_', ' ')}",
        document.summary,
        [_shown(each) for each in (summary.metrics(document), *summary.sections(document))],
        verdict=summary.verdict(document),
        failed=document.failed,
        facts=(
            f"{data.rows:,} rows of {data.source}, SHA-256 {data.sha256}.",
            f"Measured {run.began_at} in {duration(run.seconds)}, {value(run.rows_per_s)} rows/s.",
        ),
        notes=document.notes,
    )


def _shown(section: Section) -> Shown:
    return section if isinstance(section, Table) else Picture(section.title, svg(section), section.text)
