"""`python -m loadtests.open_loop`: the highest rate that a gateway bears, scenario by scenario, and a page of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer
import uvloop

from loadtests.locust.readiness import NotReady, Served
from loadtests.open_loop.measuring import OPEN_SESSIONS, SESSIONS, Failed, Found, Plan, Pool, measure
from loadtests.open_loop.probe import Probe
from loadtests.open_loop.results import Results, curves, entries, table, write
from loadtests.open_loop.search import PROBES, Bounds
from loadtests.report import history
from loadtests.report.history import HistoryRefused
from loadtests.report.quantities import quantity
from loadtests.serving import serving
from loadtests.traffic.library import FOLDER, NoTraffic, Traffic, load, make
from loadtests.traffic.models import DATES, DIGITS, TEMPERATURE
from sluice.cli.errors import CommandError
from sluice.cli.model_folders import MODELS as MODELS_FOLDER
from sluice.client import SluiceError
from sluice.evaluator.report.picture import alone
from sluice.signals import exits_when_told

MODELS = {
    SESSIONS: TEMPERATURE, "rows": DIGITS, "sequences": TEMPERATURE, "recognition": DIGITS, "generation": DATES,
}  # fmt: skip
_FOLDER = "open_loop"
_LEAST = 100  # requests of a probe: fewer say nothing of a 99th percentile
_FAILED, _WRONG_USAGE, _NOT_REACHABLE, _INTERRUPTED, _TERMINATED = 1, 2, 3, 130, 143


class Missing(StrEnum):
    """What is done with a scenario that the gateway lacks something for."""

    LEAVE_OUT = "leave-out"
    FAIL = "fail"


def main(
    scenarios: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(MODELS)}; default: all.")] = None,
    url: Annotated[str, typer.Option(help="A gateway that runs. Default: one of its own, calibrated.")] = "",
    limit: Annotated[str, typer.Option(help="What the 99th percentile may be.")] = "50 ms",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each rate is tried.")] = 8.0,
    start: Annotated[float, typer.Option(min=1, help="The rate that is tried first, in requests a second.")] = 100.0,
    probes: Annotated[int, typer.Option(min=1, help="The most probes of a scenario.")] = PROBES,
    sessions: Annotated[int, typer.Option(min=1, help="How many sessions are open at a time.")] = OPEN_SESSIONS,
    missing: Annotated[
        Missing, typer.Option(help="What to do with scenarios whose model is not served, or not calibrated.")
    ] = Missing.LEAVE_OUT,
    models: Annotated[Path, typer.Option(help="The trained models, which say what is right.")] = MODELS_FOLDER,
    traffic: Annotated[Path, typer.Option(help="Where what they answer is kept.")] = FOLDER,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("var/loadtest"),
    drawn: Annotated[
        Path | None, typer.Option("--picture", help="Also draw the p99 by offered load.", metavar="FILE.svg")
    ] = None,
) -> None:
    """Send requests at the times of a Poisson process, whether or not earlier ones are answered, and find the highest
    rate at which the 99th percentile, counted from when a request was due, keeps a limit.

    Exit codes: 1 an answer was wrong, or a scenario has no such rate; 2 wrong usage; 3 there is no gateway.
    """
    chosen = _chosen(scenarios)
    plan = _plan(limit, seconds, Bounds(start, _LEAST / seconds, probes=probes), sessions)
    results, code = Results(plan, url.rstrip("/")), 0
    try:
        history.ready(out / history.FILE)
        with exits_when_told(), _gateway(results, models, out / _FOLDER):
            served = Served(results.url, "")
            make(models, traffic)
            _measure(results, _able(results, chosen, served, load(traffic), missing))
    except (HistoryRefused, NoTraffic) as error:
        _exit(error, _WRONG_USAGE)
    except (NotReady, CommandError, SluiceError) as error:
        _exit(error, error.code if isinstance(error, CommandError) else _NOT_REACHABLE)
    except (KeyboardInterrupt, SystemExit) as stop:
        results.notes.append("It was stopped before its time.")
        code = _TERMINATED if isinstance(stop, SystemExit) else _INTERRUPTED
    page = write(out / _FOLDER, results)
    if not code:
        history.append(out / history.FILE, [*entries(results)])
        code = _FAILED if results.failed else 0
    if drawn:
        drawn.write_text(alone(curves(results).svg), encoding="utf-8")
    typer.echo(f"{table(results)}\n{results.sentence}\nThe page of it: {page}")
    raise typer.Exit(code)


def _chosen(scenarios: Sequence[str] | None) -> Sequence[str]:
    if unknown := [name for name in scenarios or () if name not in MODELS]:
        _exit(f"expected scenarios of {', '.join(MODELS)}; got {', '.join(unknown)}", _WRONG_USAGE)
    return list(dict.fromkeys(scenarios or MODELS))


def _plan(limit: str, seconds: float, bounds: Bounds, sessions: int) -> Plan:
    try:
        limit_s = quantity(limit, "duration")
    except ValueError as error:
        _exit(f"--limit: {error}", _WRONG_USAGE)
    if bounds.start < bounds.least:
        _exit(
            f"expected a --start of at least {bounds.least:g}: {bounds.start:g} requests a second are fewer than "
            f"{_LEAST} in {seconds:g} s, which say nothing of a 99th percentile",
            _WRONG_USAGE,
        )
    return Plan(limit_s, seconds, bounds, sessions)


@contextmanager
def _gateway(results: Results, models: Path, out: Path) -> Iterator[None]:
    """The gateway of the results' URL; if there is none, one of our own, until the end of the block."""
    if results.url:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    typer.echo("Starting a gateway …")
    with serving(models, out) as own:
        results.url = own.http
        yield


def _able(
    results: Results, chosen: Sequence[str], served: Served, traffic: Traffic, missing: Missing
) -> dict[str, Pool]:
    """By name of a scenario that the gateway can serve what is sent; the others are noted.

    Raises:
        NotReady: nothing is left; or a scenario would be left out, and that is not wanted.
    """
    pools: dict[str, Pool] = {name: getattr(traffic, "series" if name == SESSIONS else name) for name in chosen}
    for name, pool in [*pools.items()]:
        unknown = "" if pool else f"nobody knows what {MODELS[name]} should answer"
        lack = served.lack([MODELS[name]], {name}) or unknown
        if lack and missing is Missing.FAIL:
            raise NotReady(f"{name} cannot run: {lack}")
        if lack:
            results.notes.append(f"{name} was left out: {lack}.")
            typer.echo(results.notes[-1], err=True)
            del pools[name]
    if not pools:
        raise NotReady(f"none of {', '.join(chosen)} can run at {results.url}")
    return pools


def _measure(results: Results, pools: dict[str, Pool]) -> None:
    address = urlsplit(results.url if urlsplit(results.url).port else f"{results.url}:80").netloc
    for name, pool in pools.items():
        found = Found(name, results.plan.limit_s)
        results.found.append(found)
        try:
            uvloop.run(measure(address, found, pool, results.plan, partial(_tell, found)))
        except Failed as error:
            found.ended = str(error)
            typer.echo(f"{name}: {error}", err=True)


def _tell(found: Found, probe: Probe) -> None:
    trouble = probe.trouble(found.limit_s)
    p50, p99 = (f"{value:,.1f}" if (value := probe.ms(each)) else "no" for each in (50, 99))
    typer.echo(f"{found.scenario:12} {probe.rate:7,g}/s  p50 {p50} ms, p99 {p99} ms  {trouble or 'held'}")
    for sentence in probe.told:
        typer.echo(f"    wrong: {sentence}")


def _exit(reason: object, code: int) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
