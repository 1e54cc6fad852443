"""What a run says: tables on the screen, and one JSON file."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.bench.report.bars import Bar
from loadtests.bench.report.results import Outcome, Spread

SCHEMA = 1
_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "grpcio",
    "protobuf",
    "uvicorn",
    "uvloop",
    "httptools",
    "orjson",
    "sluice-serving",
)
_FIGURES = {
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "mean_batch": "batch",
    "gateway_cpu_s": "gateway",
    "model_server_cpu_s": "server",
    "load_cpu_s": "load",
}
_RANGES_FROM = 120  # columns of the screen


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def document(
    machine: dict[str, Any], options: dict[str, Any], outcomes: Iterable[Outcome], bars: Iterable[Bar]
) -> dict[str, Any]:
    """The whole run for the JSON file; CPU seconds are for 1,000 steps."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "options": options,
        "cases": [outcome.document() for outcome in outcomes],
        "bars": [bar.document() for bar in bars],
    }


def write(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def show(console: Console, outcomes: Sequence[Outcome], bars: Sequence[Bar]) -> None:
    """The tables."""
    if measured := [outcome for outcome in outcomes if outcome.figure("steps_per_s")]:
        console.print(_speeds(measured, ranges=console.width >= _RANGES_FROM))
    if (others := _others(outcomes)).row_count:
        console.print(others)
    if failed := [outcome for outcome in outcomes if outcome.failure is not None]:
        console.print(_failures(failed))
    console.print(bar_table("Reached / asked, within this run, round by round", bars))


def _speeds(outcomes: Iterable[Outcome], *, ranges: bool) -> Table:
    table = _table("Medians of the rounds; of gateway, model server and load generator CPU seconds for 1,000 steps")
    table.add_column("case", min_width=20)
    for heading in ("steps/s", *(["least … most"] if ranges else []), *_FIGURES.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    group = ""
    for outcome in outcomes:
        if group not in ("", outcome.group):
            table.add_section()
        group = outcome.group
        rate = outcome.spread("steps_per_s")
        assert rate is not None
        texts = [_range(rate)] if ranges else []
        texts += [_short(outcome.figure(name)) for name in _FIGURES]
        table.add_row(outcome.title, f"{rate.median:,.0f}", *texts)
    return table


def _others(outcomes: Iterable[Outcome]) -> Table:
    """Figures that only some cases have."""
    titles = {
        "bytes_per_session": "bytes of an idle session",
        "open_s": "seconds to open the sessions and step each once",
        "ready_s": "seconds until ready",
        "padding_share": "share of padding and filler in all elements that ran",
        "padding_over_optimum": "padding of the learned bounds over the optimum's",
        "padding_share_over_optimum": "that share over the share under the best bounds",
        "open70_per_s": "sequences a second at 70 % of capacity, Poisson",
        "open70_p50_ms": "p50 ms at 70 % of capacity, Poisson",
        "open70_p99_ms": "p99 ms at 70 % of capacity, Poisson",
        "open70_short_p99_ms": "p99 ms of the shortest quarter at 70 % of capacity, Poisson",
    }
    table = _table("Besides")
    for heading in ("case", "figure"):
        table.add_column(heading)
    table.add_column("median", justify="right")
    table.add_column("least … most", justify="right")
    for outcome in outcomes:
        for name, title in titles.items():
            if spread := outcome.spread(name):
                table.add_row(outcome.title, title, _short(spread.median), _range(spread))
    return table


def _failures(outcomes: Iterable[Outcome]) -> Table:
    table = _table("Not measured")
    table.add_column("case")
    table.add_column("reason", overflow="fold")
    for outcome in outcomes:
        table.add_row(outcome.title, Text(outcome.failure or "", "red"))
    return table


def bar_table(title: str, bars: Iterable[Bar]) -> Table:
    """One line for each bar: what was reached, what is asked, and whether it holds."""
    table = _table(title)
    table.add_column("")
    for heading in ("reached", "least … most", "asked", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for bar in bars:
        asked = f"{'≥' if bar.at_least else '≤'} {_short(bar.asked)} {bar.unit}".rstrip()
        if bar.reached is None:
            table.add_row(bar.title, "", "", asked, "not measured")
            continue
        verdict = Text("yes", "green") if bar.holds else Text("no", "red")
        table.add_row(bar.title, f"{_short(bar.reached.median)} {bar.unit}", _range(bar.reached), asked, verdict)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))


def _range(spread: Spread) -> str:
    return f"{_short(spread.least)} … {_short(spread.most)}"


def _short(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
