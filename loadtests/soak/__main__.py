"""`python -m loadtests.soak`: mixed load on a gateway for an hour, with a model server that is killed now and then."""

import csv
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.request import urlopen

import typer
from rich.console import Console

from loadtests.locust.__main__ import locust
from loadtests.processes import Child, Failed, python, run
from loadtests.report.quantities import quantity
from loadtests.serving import serving
from loadtests.soak import findings, page, samples
from loadtests.soak.findings import MIB, Finding
from loadtests.soak.killing import kill_times
from loadtests.soak.samples import EVALUATOR, GATEWAY
from loadtests.soak.watching import Watch, Watched
from sluice.cli.embedded import Embedded
from sluice.cli.errors import FAILED, NOT_REACHABLE, CommandError
from sluice.cli.model_folders import MODELS
from sluice.client import SluiceError

# What a gateway remembers by its settings is as much as it gets before the first quarter of an hour is over.
_FLAGS = ("--session-idle-s", "120", "--sessions-remembered-s", "300")
_EVALUATOR_S = 60.0
_TRAFFIC_S = 600.0
_TELL_S = 60.0

console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _duration(text: str) -> float:
    try:
        seconds = quantity(text, "duration")
    except ValueError as error:
        raise typer.BadParameter(f"--length: {error}") from None
    if seconds < 1:
        raise typer.BadParameter(f"--length: expected a second at least, got {text!r}")
    return seconds


def main(
    length: Annotated[str, typer.Option(metavar="DURATION", help="Of the load, such as 60s, 10min or 1h.")] = "1h",
    users: Annotated[int, typer.Option(min=1, help="Of Locust, of all kinds.")] = 26,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds between a user's requests, on average.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the times at which the model server is killed.")] = 1,
    models: Annotated[Path, typer.Option(help="Folder of the trained models.")] = MODELS,
    out: Annotated[Path, typer.Option(help="Folder for the page and all that was seen.")] = Path("var/loadtest/soak"),
) -> None:
    """Load a gateway with all of Locust's users, kill its model server now and then, and judge what it held meanwhile.

    Exit codes: 0 all is well, 1 something does not hold, or the budgets of the users are broken, or answers were
    wrong, 2 wrong usage, 3 there is no gateway.
    """
    length_s = _duration(length)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with serving(models, out, *_FLAGS) as own:
            traffic = out / "traffic"
            run(python("loadtests.traffic", "--models", models, "--out", traffic), _TRAFFIC_S)  # not under the load
            watch = _ready_to_watch(own)
            options = ["--shape=soak", f"--users={users}", f"--wait={wait_s}", f"--run-time={length_s:.0f}s"]
            load = Child(locust(own, models, out, [*options, "--missing=fail"]), out / "locust.log", apart=True)
            try:
                watch.follow(load, kill_times(length_s, seed), _progress())
            finally:
                load.stop()
                samples.write(watch.seen.samples, out / "samples.csv")
            watch.rest()
    except (CommandError, SluiceError) as error:
        console.print(f"soak: {error}")
        sys.exit(error.code if isinstance(error, CommandError) else NOT_REACHABLE)
    except Failed as error:
        console.print(f"soak: {error}; its log is {out / 'serve.log'}")
        sys.exit(FAILED)
    _finish(out, watch.seen, load, f"{users} users, {wait_s:g} s between requests on average, seed {seed}")


def _ready_to_watch(own: Embedded) -> Watch:
    """From when its evaluator runs, too, which the gateway starts when it is first asked for."""
    urlopen(f"{own.http}/v1/evaluations", timeout=_EVALUATOR_S).close()  # noqa: S310 - HTTP
    return Watch(own)


def _progress() -> Callable[[Watched], None]:
    """Says every minute how the gateway does."""
    next_s = 0.0

    def tell(seen: Watched) -> None:
        nonlocal next_s
        if seen.load_s >= next_s:
            next_s += _TELL_S
            now = seen.of(GATEWAY)[-1]
            console.print(
                f"{seen.load_s / 60:.0f} min: gateway {now.resident_bytes / MIB:.1f} MiB, {now.descriptors} file "
                f"descriptors; model server killed {len(seen.kills)} times"
            )

    return tell


def _finish(out: Path, seen: Watched, load: Child, words: str) -> None:
    """Write everything, say what does not hold, and exit."""
    lasting = {name: seen.of(name) for name in (GATEWAY, EVALUATOR)}
    found = [
        _users(load, out),
        *(findings.memory(name, held, seen.load_s) for name, held in lasting.items()),
        *(findings.descriptors(name, held, seen.load_s) for name, held in lasting.items()),
        findings.descriptors_left(*seen.gateway_at_rest()),
        findings.model_server(seen.kills),
    ]
    file = out / "soak.html"
    files = {"summary.html": "what the users saw, and what the gateway counted", "samples.csv": "every look, as CSV"}
    page.write(file, seen, found, words, files)
    page.write_memory(out / "memory.svg", seen)
    for each in found:
        console.print(f"{page.HOLDS[each.holds]}: {each.title} ({each.asked}): {each.found}")
    print(f"The page of it: {file}")  # noqa: T201 - for whoever reads standard output
    sys.exit(FAILED if any(each.holds is False for each in found) else 0)


def _users(load: Child, out: Path) -> Finding:
    """Whether the users had right answers and kept to their budgets, as Locust says by its exit code."""
    title, asked = "every answer is right, and the budgets are kept", "Locust ends with code 0"
    try:
        lines = [(out / f"locust_{name}.csv").read_text("utf-8").splitlines() for name in ("stats", "failures")]
        (*_, total), failed = map(csv.DictReader, lines)
    except (OSError, ValueError):
        return Finding(title, asked, f"it said: {load.last_words()}", False)
    kinds = Counter[str]()
    for each in failed:
        kinds[each["Error"]] += int(each["Occurrences"])
    told = "; ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or "none failed"
    return Finding(title, asked, f"code {load.code}, {int(total['Request Count']):,} requests; {told}", load.code == 0)


if __name__ == "__main__":
    typer.run(main)
