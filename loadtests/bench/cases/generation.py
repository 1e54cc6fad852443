"""The cases of generation: one running batch that instances join and leave, beside batches that wait for their longest.

In this group a step is a token.
"""

from collections.abc import Iterator

from loadtests.bench.cases.case import Case, python_load, watched
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import Stage
from loadtests.bench.workloads.generation import DECODE, GENERATOR, SLOTS

_LIMIT_S = 100.0  # beside what is measured


def generation_cases() -> Iterator[Case]:
    for mode, title in (
        ("running", f"generation, {SLOTS} clients, one running batch"),
        ("static", f"generation, {SLOTS} clients that wait for the longest"),
        ("stream", f"generation, {SLOTS} clients, streams: time to the first token"),
    ):

        def measure(stage: Stage, seconds: float, mode: str = mode) -> list[Sample]:
            gateway = stage.gateway("gateway")
            args = (gateway.address, mode, SLOTS, seconds)
            lane = GENERATOR, DECODE
            return [watched(stage, gateway, lane, lambda: python_load("loads.generate", seconds + _LIMIT_S, *args))]

        yield Case(f"generation-{mode}", "generation", title, measure)

    def direct(stage: Stage, seconds: float) -> list[Sample]:
        return [python_load("servers.static_batches", seconds + _LIMIT_S, stage.backend, SLOTS, seconds).sample()]

    yield Case("generation-direct", "generation", f"generation, model server alone, batches of {SLOTS}", direct)
