"""Coordinated omission: `python -m loadtests.open_loop.omission [--picture FILE.svg]`, one stall, seen in two ways.

A gateway that is started for it is stopped for a second in the middle of two runs, by SIGSTOP. In one, Locust's users
wait for their answers before they ask again, a closed loop; in the other, as many requests a second are sent when they
are due.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import log10
from pathlib import Path
from threading import Timer
from typing import Annotated, Any

import typer
import uvloop

from loadtests.open_loop.measuring import offered
from loadtests.open_loop.probe import Probe, judged
from loadtests.open_loop.schedule import arrivals
from loadtests.open_loop.sources import Cycle
from loadtests.processes import python
from loadtests.report.gateway import read, scrape
from loadtests.report.plots import in_milliseconds
from loadtests.serving import serving
from loadtests.traffic.library import FOLDER, load, make
from loadtests.traffic.models import DIGITS
from sluice.cli.model_folders import MODELS
from sluice.evaluator.report.picture import alone, legend, picture

USERS, WAIT_S = 10, 0.1
SECONDS, STALL_S = 30.0, 1.0
_SEED = 21
_CONFIG = Path(__file__).parents[1] / "locust" / "locust.conf"
_UNDER_WAY = 50  # rows after which Locust's users are all there
_POLL_S, _START_S = 0.1, 120.0
_DRAWN_TO = 99.9  # percentiles beyond it are those of one request or two
_TICKS = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a load generator says of a run: milliseconds by percentile."""

    name: str
    requests: int
    per_s: float
    percentiles: Mapping[float, float]


def main(
    out: Annotated[Path, typer.Option(help="Folder for what Locust writes, and the logs.")] = Path("var/loadtest"),
    models: Annotated[Path, typer.Option(help="The trained models.")] = MODELS,
    drawn: Annotated[Path | None, typer.Option("--picture", help="Also draw it.", metavar="FILE.svg")] = None,
) -> None:
    """Stop a gateway for a second, once under Locust and once under an open loop at the same rate."""
    folder = out / "omission"
    folder.mkdir(parents=True, exist_ok=True)
    with serving(models, folder) as own:
        make(models, FOLDER)
        closed = _closed_loop(own.http, own.process.pid, folder)
        open_ = _open_loop(own.http, own.process.pid, closed.per_s)
    print(table((closed, open_)))  # noqa: T201 - the answer
    if drawn:
        drawn.write_text(alone(draw((closed, open_))), encoding="utf-8")


@contextmanager
def stalling(pid: int, after_s: float, stall_s: float = STALL_S) -> Iterator[None]:
    """In the block the process is stopped once, for so long; whatever ends the block, it goes on."""
    timers = [Timer(after_s, os.kill, (pid, signal.SIGSTOP)), Timer(after_s + stall_s, os.kill, (pid, signal.SIGCONT))]
    try:
        for timer in timers:
            timer.start()
        yield
    finally:
        for timer in timers:
            timer.cancel()
        os.kill(pid, signal.SIGCONT)


def _closed_loop(url: str, pid: int, folder: Path) -> Seen:
    """What Locust counts."""
    options = {
        "config": _CONFIG, "host": url, "users": USERS, "spawn-rate": USERS, "wait": WAIT_S,
        "run-time": f"{SECONDS:g}s", "traffic": FOLDER, "out": folder,
        "csv": folder / "locust", "html": folder / "locust.html",
    }  # fmt: skip
    command = python("locust", "--headless", "--only-summary", *(f"--{name}={each}" for name, each in options.items()))
    before = _rows(url)
    log = folder / "locust.log"
    with log.open("wb") as said, subprocess.Popen([*command, "RowsUser"], stdout=said, stderr=said) as locust:  # noqa: S603
        try:
            deadline = time.monotonic() + _START_S
            while _rows(url) < before + _UNDER_WAY:
                if locust.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"expected requests of Locust, and none came; its log is in {log}")
                time.sleep(_POLL_S)
            with stalling(pid, SECONDS / 2):
                locust.wait()
        finally:
            locust.terminate()
    with (folder / "locust_stats.csv").open(encoding="utf-8") as lines:
        return seen_by_locust(next(row for row in csv.DictReader(lines) if row["Name"] == "Aggregated"))


def seen_by_locust(row: Mapping[str, str]) -> Seen:
    """A line of Locust's statistics."""
    percentiles = {float(name[:-1]): float(value) for name, value in row.items() if name.endswith("%")}
    return Seen("Locust", int(row["Request Count"]), float(row["Requests/s"]), percentiles)


def _rows(url: str) -> float:
    """Rows of the scenario so far, as the gateway counts."""
    scraped = scrape(url)
    return (
        sum(value for key, value in read(scraped).items() if key[:2] == ("sluice_rows_total", DIGITS))
        if scraped
        else 0.0
    )


def _open_loop(url: str, pid: int, per_s: float) -> Seen:
    source, due = Cycle(load().rows), arrivals(per_s, SECONDS, _SEED)
    with stalling(pid, SECONDS / 2):
        found = uvloop.run(offered(url.rpartition("//")[2], due, source))
    return seen_by_open_loop(judged(found, per_s, SECONDS, 0.0))


def seen_by_open_loop(probe: Probe) -> Seen:
    """As `Seen`, at the percentiles that Locust gives, and at finer ones."""
    if trouble := probe.wrong or probe.skipped or probe.refused:
        sys.exit(f"expected every request to be answered; {trouble} were not")
    wanted = [*(each / 10 for each in range(500, 1000)), 100.0]
    percentiles = {percentile: probe.ms(percentile) or 0.0 for percentile in wanted}
    return Seen("open loop", probe.due, probe.rate, percentiles)


def table(seen: tuple[Seen, Seen]) -> str:
    """In Markdown."""
    columns = (*_TICKS, 100.0)
    lines = [f"| | requests | {' | '.join(f'p{each:g}' for each in columns[:-1])} | longest |", "|---" * 7 + "|"]
    lines += [
        f"| {each.name} | {each.requests:,} | {' | '.join(_ms(each.percentiles[at]) for at in columns)} |"
        for each in seen
    ]
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"


def draw(seen: tuple[Seen, Seen]) -> str:
    """Latency by percentile, as HdrHistogram's plots show it, so that each nine takes as much room."""

    def drawn(axes: Any) -> None:
        for each, form in zip(seen, ("o-", "-"), strict=True):
            points = [(nines(at), ms) for at, ms in sorted(each.percentiles.items()) if at <= _DRAWN_TO]
            axes.plot(*zip(*points, strict=True), form, markersize=4, label=each.name)
        axes.set(xlabel="percentile")
        axes.set_xticks([*map(nines, _TICKS)], [f"{each:g} %" for each in _TICKS])
        in_milliseconds(axes)
        legend(axes)

    title = "Latency by percentile with one stall of a second, as Locust counts it and as the open loop does"
    return picture(title, (6.4, 3.6), drawn)


def nines(percentile: float) -> float:
    """How many: 1 for 90 %, 2 for 99 %."""
    return -log10(1 - percentile / 100)


if __name__ == "__main__":
    typer.run(main)
