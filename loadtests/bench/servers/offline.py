"""The offline ideal: `python -m loadtests.bench.servers.offline BACKEND MIX SECONDS`.

Sequences are known 128 at a time, sorted by length, and the model server is called directly with full batches of them,
as many at a time as the gateway has in flight. Small batches pad less, large ones run better: the size that is fastest
in a short trial counts. Prints a line of JSON.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from loadtests.bench.loads.load import WARM_UP_S, Load, Meter, printed
from loadtests.bench.loads.predict import OPTIONS, PREDICT
from loadtests.bench.workloads.lengths import MIXES, WINDOW, Mix, lengths_of, windows
from loadtests.bench.workloads.sequences import predict_request, sequences_of
from sluice.policy.batching import BatchingOptions

SIZES = (8, 16, 32, 64, 128)
_LIMIT_S = 60

Calls = list[list[bytes]]  # by window, the messages of its batches


class _Running:
    """Hands out calls, whole windows of them, until the time is over."""

    def __init__(self, calls: Calls, seconds: float) -> None:
        self._next = self._messages(calls, seconds)
        self._lock = threading.Lock()

    def _messages(self, calls: Calls, seconds: float) -> Iterator[bytes]:
        until = time.perf_counter() + seconds
        while True:
            for window in calls:
                if time.perf_counter() > until:
                    return
                yield from window

    def take(self) -> bytes | None:
        with self._lock:
            return next(self._next, None)


def calls_of(mix: Mix, size: int) -> Calls:
    rows, lengths = sequences_of(mix), lengths_of(mix)
    return [
        [predict_request([rows[place] for place in batch]) for batch in batches]
        for batches in windows(lengths, WINDOW, size)
    ]


def timed(call: Any, calls: Calls, size: int, seconds: float) -> Load:
    """Calls back to back; an answer is a sequence's, a latency a batch's."""
    callers = BatchingOptions().in_flight
    meter, running = Meter(callers), _Running(calls, seconds)

    def go_on(caller: int) -> None:
        while (message := running.take()) is not None:
            call(message, timeout=_LIMIT_S)
            meter.answered([caller])

    with ThreadPoolExecutor(callers) as threads:
        meter.begin()
        list(threads.map(go_on, range(callers)))
    load = meter.end()
    return Load(load.answers * size, load.seconds, load.p50_ms, load.p99_ms, load.cpu_s)


def run(backend: str, mix: Mix, seconds: float) -> Load:
    with grpc.insecure_channel(backend, options=OPTIONS) as channel:
        call: Any = channel.unary_unary(PREDICT, bytes, bytes)
        trials = {}
        for size in SIZES:
            calls = calls_of(mix, size)
            load = timed(call, calls, size, WARM_UP_S)
            trials[size] = load.answers / load.seconds, calls
        size = max(trials, key=lambda size: trials[size][0])
        return timed(call, trials[size][1], size, seconds)


def main(backend: str, mix: str, seconds: str) -> None:
    try:
        load = run(backend, next(each for each in MIXES if each.name == mix), float(seconds))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
