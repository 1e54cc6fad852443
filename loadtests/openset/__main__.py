"""`python -m loadtests.openset`: every method that says "none of these", on both data sets, over five seeds."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.bench.report import report
from loadtests.openset import page, plots
from loadtests.openset.bars import bars, too_many
from loadtests.openset.methods import Scored, scored
from loadtests.openset.table import BASELINE, Measured, chosen, measured, table
from sluice_models.openset.variants import SUFFIXES, variant

EXAMPLES = ("digits", "glyphs")

_PAGE_COLUMNS = 200  # of tables that do not go to a terminal


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How often everything is trained.")] = 5,
    only: Annotated[str, typer.Option(help="Data sets, with commas between them.")] = ",".join(EXAMPLES),
    out: Annotated[Path, typer.Option(help="Folder for openset.json and the pictures.")] = Path("var/openset"),
    docs: Annotated[bool, typer.Option(help="Write the tables into docs/openset.md too.")] = False,
) -> None:
    """Train the networks, score the test's pictures with every method, and show how well each tells unknown from known,
    and whether what is asked is reached.

    The default method, bold, is chosen by the calibration's pictures.
    """
    console = Console(width=None if sys.stdout.isatty() else _PAGE_COLUMNS)
    out.mkdir(parents=True, exist_ok=True)
    every: dict[str, dict[str, list[Measured]]] = {}
    for name in only.split(","):
        runs: dict[str, list[Measured]] = {}
        for seed in range(1, seeds + 1):
            console.print(f"{name}, seed {seed} of {seeds}")
            found = _scored(name, seed)
            for each in found:
                runs.setdefault(each.method, []).append(measured(each))
        every[name] = runs
        console.print(table(f"{name}: mean ± standard deviation of {seeds} seeds", runs))
        console.print(report.bar_table(f"{name}: reached / asked, median of the seeds", bars(name, runs)))
        for each in too_many(runs):
            console.print(f"  rejects too many knowns: {each}")
        shown = [BASELINE, chosen(runs)]
        plots.draw_methods(name, runs, out / f"{name}-methods.png")
        plots.draw_scores(name, {each.method: each for each in found}, shown, out / f"{name}-scores.png")
    document: dict[str, Any] = {
        "schema": report.SCHEMA,
        "machine": report.machine(),
        "options": {"seeds": seeds},
        "default": {name: chosen(runs) for name, runs in every.items()},
        "bars": [bar.document() for name, runs in every.items() for bar in bars(name, runs)],
        "reject_too_many": {name: too_many(runs) for name, runs in every.items()},
        "methods": every,
    }
    report.write(out / "openset.json", document)
    if docs:
        page.write(every, seeds)
    console.print(f"Written: {out / 'openset.json'} and pictures beside it")


def _scored(name: str, seed: int) -> list[Scored]:
    model, data = (import_module(f"sluice_models.{name}.{part}") for part in ("model", "data"))
    pictures = data.load()
    variants = {which: variant(which, name, pictures, model.RECIPE, seed) for which in SUFFIXES}
    return [*scored(variants, pictures, model.OPTIONS)]


if __name__ == "__main__":
    typer.run(main)
