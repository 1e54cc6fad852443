"""`python -m loadtests.bench`: measures every door, beside the bare model and a server that only echoes."""

import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.bench.cases.doors import Case, all_cases
from loadtests.bench.profile import profile as draw_profile
from loadtests.bench.report import plots, report
from loadtests.bench.report.bars import bars
from loadtests.bench.report.results import Outcome
from loadtests.bench.rounds import run_rounds
from loadtests.bench.stage import Stage
from loadtests.processes import find_wrk

_PAGE_COLUMNS = 140  # of tables that do not go to a terminal
GROUPS = list(dict.fromkeys(case.group for case in all_cases()))


def main(
    only: Annotated[
        str, typer.Option(metavar="WORD[,…]", help="Cases or groups to measure, such as http,echo-128; default: all.")
    ] = "",
    seconds: Annotated[int, typer.Option(min=1, help="How long each case is loaded in each round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is measured.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results.json, pictures, logs and models.")] = Path("var/bench"),
    profile: Annotated[bool, typer.Option("--profile", help="Also write a flame graph of the gateway.")] = False,
    cases: Annotated[bool, typer.Option("--list", help="Show the cases, and do nothing.")] = False,
) -> None:
    """Measure every door of the gateway, beside the bare model and a server that only echoes.

    Every round runs every case once, so that the figures of a round can be compared; the tables show the median of the
    rounds. Results go to var/bench: results.json, pictures, logs. A case that cannot be measured stands in the
    tables with its reason, and the exit code is 1 then.
    """
    chosen = _chosen(only)
    if cases:
        for case in chosen:
            print(f"{case.name:22} {case.title}")  # noqa: T201 - what was asked for
        return
    if find_wrk() is None:
        _fail("wrk is missing, which sends the load. `make system-packages` installs it (Debian's package is wrk).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that all processes are stopped
    console = Console(width=None if sys.stdout.isatty() else _PAGE_COLUMNS)
    outcomes = _measure(console, chosen, out.absolute(), rounds, seconds, profile=profile)
    reached = bars(outcomes)
    report.show(console, list(outcomes.values()), reached)
    options = {"only": only, "seconds": seconds, "rounds": rounds}
    report.write(out / "results.json", report.document(report.machine(), options, outcomes.values(), reached))
    files = [out / "results.json", *plots.draw(outcomes, out), *([out / "profile.svg"] if profile else [])]
    console.print("Written:", ", ".join(map(str, files)))
    if any(outcome.failure for outcome in outcomes.values()):
        raise typer.Exit(1)


def _chosen(only: str) -> list[Case]:
    """The cases that `only` names by case or group; all of them if it is empty."""
    every = all_cases()
    words = [word.strip() for word in only.split(",") if word.strip()]
    if unknown := [word for word in words if not any(word in (case.name, case.group) for case in every)]:
        _fail(f"there is no case or group {', '.join(unknown)}; groups are {', '.join(GROUPS)}; --list shows the cases")
    return [case for case in every if not words or case.name in words or case.group in words]


def _measure(
    console: Console, cases: list[Case], out: Path, rounds: int, seconds: int, *, profile: bool
) -> dict[str, Outcome]:
    shutil.rmtree(out / "logs", ignore_errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Stage(out) as stage, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases) * (rounds + 1))

        def told(what: str) -> None:
            progress.update(task, description=f"{what:.70}", completed=progress.tasks[0].completed + 1)

        outcomes = run_rounds(stage, cases, rounds, seconds, told)
        if profile:
            progress.update(task, description="profiling the gateway")
            draw_profile(stage, out / "profile.svg", max(seconds, 5))
    return outcomes


def _fail(reason: str) -> NoReturn:
    print(f"bench: {reason}", file=sys.stderr)  # noqa: T201 - it is wrong usage, or cannot start
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
