"""The case of a good neighbour: live sequences in an open loop at half of capacity, alone and beside an evaluation.

In this group a step is a sequence of the live load.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from loadtests.bench.cases.case import Case, python_loads
from loadtests.bench.loads import wrk
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import Gateway, Stage, until
from loadtests.bench.workloads.lengths import LOG_NORMAL, LONGEST, WINDOW
from loadtests.bench.workloads.sequences import LENGTHS, RAGGED, SEQUENCES, http_requests, sequences_of
from loadtests.bench.workloads.steps import FEATURES, INPUT
from loadtests.processes import Child, python

_SHARE = 0.5  # of capacity
_REPEATED = 4  # of the mix's sequences, so that the evaluation lasts longer than it is watched
_LIMIT_S = 100.0


def neighbour_cases() -> Iterator[Case]:
    def measure(stage: Stage, seconds: float) -> list[Sample]:
        gateway = stage.gateway("gateway-neighbour", "--buckets", "8", "--sequence-limit", str(LONGEST))
        capacity = wrk.call_many(gateway.address, http_requests(LOG_NORMAL, padded=False), WINDOW, seconds).sample()
        rate = capacity["steps_per_s"] * _SHARE
        alone = _live(gateway, rate, seconds)
        with _evaluation(stage, gateway):
            before = gateway.batches(SEQUENCES, RAGGED)[0]
            beside = _live(gateway, rate, seconds)
            rows = gateway.batches(SEQUENCES, RAGGED)[0] - before
        return [
            {
                "steps_per_s": rate,
                "p99_ms": beside["p99_ms"],
                "alone_p99_ms": alone["p99_ms"],
                "beside_over_alone_p99": beside["p99_ms"] / alone["p99_ms"],
                "evaluated_per_s": max(0.0, rows / seconds - rate),
            }
        ]

    title = "live sequences at half of capacity, beside an evaluation"
    yield Case("neighbour", "neighbour", title, measure)


def _live(gateway: Gateway, rate: float, seconds: float) -> Sample:
    args = (gateway.address, LOG_NORMAL.name, 0, seconds, rate)
    return python_loads("loads.poisson", _LIMIT_S + seconds, *args)[0].sample()


@contextmanager
def _evaluation(stage: Stage, gateway: Gateway) -> Iterator[None]:
    """One that runs, from its first rows until the end of the block."""
    before = gateway.batches(SEQUENCES, RAGGED)[0]
    child = Child(
        python(
            "sluice.cli", "evaluate", SEQUENCES, "--url", f"http://{gateway.address}",
            "--data", _request(stage.models.parent), "--batch-sizes", "",
        ),
        stage.models.parent / "logs" / "evaluate.log",
    )  # fmt: skip
    try:

        def runs() -> bool:
            child.check()
            return gateway.batches(SEQUENCES, RAGGED)[0] > before

        until(runs, "the evaluation to send rows")
        yield
        child.check()  # or there was nothing beside the load any more
    finally:
        child.stop()


def _request(folder: Path) -> Path:
    """The mix's sequences with made-up labels, and the request that evaluates them."""
    rows, request = folder / "neighbour.npz", folder / "neighbour.evaluation.json"
    if not request.exists():
        sequences = sequences_of(LOG_NORMAL) * _REPEATED
        block = np.zeros((len(sequences), LONGEST, FEATURES), np.float32)
        for into, row in zip(block, sequences, strict=True):
            into[: len(row)] = row
        lengths = np.array([len(row) for row in sequences], np.int32)
        np.savez(rows, **{INPUT: block, LENGTHS: lengths, "label": np.zeros((len(sequences), FEATURES), np.float32)})
        fields = {"data": {"path": rows.name}, "task": "regression", "options": {"signature": RAGGED}}
        request.write_bytes(orjson.dumps(fields))
    return request
