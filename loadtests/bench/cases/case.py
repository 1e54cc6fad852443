"""What a case is, and what most of them do: load an address, and watch the servers meanwhile."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.bench.loads import load
from loadtests.bench.loads.load import Load
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import Gateway, Stage
from loadtests.processes import Child, python, run

_GRACE_S = 30

Measure = Callable[[Stage, float], list[Sample]]


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure, once a round: `measure(stage, seconds)`, which may raise `Failed`."""

    name: str
    group: str
    title: str
    measure: Measure


def watched(stage: Stage, gateway: Gateway, lane: tuple[str, str], work: Callable[[], Load], rows: int = 1) -> Sample:
    """A load's figures, with the mean batch of a signature and the CPU seconds for 1,000 steps of both servers."""
    servers: dict[str, Child] = {"gateway": gateway.process, "model_server": stage.model_server}
    before, cpu_before = gateway.batches(*lane), {name: server.cpu_s for name, server in servers.items()}
    measured = work()
    after = gateway.batches(*lane)
    steps, batches = after[0] - before[0], after[1] - before[1]
    cpu = {f"{name}_cpu_s": (server.cpu_s - cpu_before[name]) / steps * 1000 for name, server in servers.items()}
    return {**measured.sample(rows), "mean_batch": steps / batches, **cpu}


def python_load(module: str, seconds: float, *args: object) -> Load:
    """What a load generator of ours measures: the module of this name, run with these arguments.

    Raises:
        Failed: it failed.
    """
    return load.parse(_printed(module, seconds, *args))


def python_loads(module: str, seconds: float, *args: object) -> list[Load]:
    """As `python_load`, of a module that measures several loads one after the other."""
    return [Load(**each) for each in json.loads(_printed(module, seconds, *args))]


def _printed(module: str, seconds: float, *args: object) -> str:
    return run(python(f"loadtests.bench.{module}", *args), seconds + _GRACE_S)
