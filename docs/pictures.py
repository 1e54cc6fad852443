"""Draws the pictures of docs/questions.md that show what was measured, from evaluations of the example models.

It needs the models in var/models (`sluice models build`), and takes some minutes. `--from DIR` draws from reports that
are there, NAME.json, instead.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluice.evaluator.document import Bars, Document, Lines, Matrix, Section, Table
from sluice.evaluator.report import summary
from sluice.evaluator.report.picture import alone
from sluice.evaluator.report.plots import svg

PICTURES = Path(__file__).parent / "pictures"
# By picture: the example, the title of the section in its report, and of a table the column that is drawn.
SHOWN = {
    "batch_size": ("temperature", "Throughput by batch size", ""),
    "clips": ("clips", "Confusion", ""),
    "scores": ("digits", "Scores", ""),
    "perplexity": ("dates", "Buckets", "perplexity"),
}


def main(
    reports: Annotated[Path | None, typer.Option("--from", metavar="DIR", help="Folder of reports, NAME.json.")] = None,
) -> None:
    """Draw the pictures of docs/questions.md that show what was measured."""
    for picture, (example, title, column) in SHOWN.items():
        folder = reports or _evaluated(example)
        document = Document.model_validate_json((folder / f"{example}.json").read_bytes())
        found = next(each for each in summary.sections(document) if each.title.startswith(title))
        (PICTURES / f"{picture}.svg").write_text(alone(svg(_plot(found, column))), encoding="utf-8")


def _evaluated(example: str) -> Path:
    folder = Path("var/pictures")
    command = [sys.executable, "-m", "sluice.cli", "evaluate", example, "--report", str(folder / f"{example}.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves
    return folder


def _plot(section: Section, column: str) -> Lines | Bars | Matrix:
    if not isinstance(section, Table):
        return section
    place = section.columns.index(column)
    values = tuple(row[place] for row in section.rows)
    names = tuple(str(row[0]) for row in section.rows)
    return Bars(title=column, x=section.columns[0], y=column, names=names, series={column: values})  # type: ignore[dict-item]


if __name__ == "__main__":
    typer.run(main)
