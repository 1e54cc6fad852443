"""What a load generator measures, and the clockwork of those in Python: a closed loop of calls, told apart by tag."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass

import numpy as np

WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True)
class Load:
    """Answers, their latencies, and the CPU time that the load generator took itself.

    short_p99_ms: the p99 of the shortest quarter of sequences, where they are told apart.
    """

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    short_p99_ms: float | None = None

    def sample(self, rows: int = 1) -> dict[str, float]:
        """As figures of a case, where each answer is `rows` steps; CPU seconds are for 1,000 steps."""
        steps = self.answers * rows
        return {
            "steps_per_s": steps / self.seconds,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "load_cpu_s": self.cpu_s / steps * 1000,
        }


class Meter:
    """Times every call from sending to answer. Each tag has one call outstanding at a time."""

    def __init__(self, tags: int) -> None:
        self._sent_at = [time.perf_counter()] * tags
        self._latencies: list[float] = []
        self._began = self._cpu = 0.0

    def answered(self, tags: list[int]) -> None:
        """These calls were answered just now, and are sent again."""
        now, sent_at = time.perf_counter(), self._sent_at
        for tag in tags:
            self._latencies.append(now - sent_at[tag])
            sent_at[tag] = now

    def begin(self) -> None:
        """Forget what was measured so far."""
        self._latencies.clear()
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def end(self) -> Load:
        """What was measured since `begin`.

        Raises:
            ConnectionError: nothing was answered.
        """
        seconds, cpu_s = time.perf_counter() - self._began, time.process_time() - self._cpu
        if not self._latencies:
            raise ConnectionError(f"no answer came within {seconds:.1f} s")
        p50, p99 = np.percentile(self._latencies, (50, 99)) * 1000
        return Load(len(self._latencies), seconds, float(p50), float(p99), cpu_s)


async def measure(meter: Meter, failed: "asyncio.Future[None]", seconds: float) -> Load:
    """Let the calls go round for `seconds` after a warm-up.

    Raises:
        Exception: what `failed` was told.
    """
    for duration, next_thing in ((WARM_UP_S, meter.begin), (seconds, lambda: None)):
        await asyncio.wait([failed], timeout=duration)
        if failed.done():
            failed.result()
        next_thing()
    return meter.end()


def printed(load: Load) -> str:
    """One line for the process that asked."""
    return json.dumps(asdict(load))


def parse(line: str) -> Load:
    """The inverse of `printed`."""
    return Load(**json.loads(line))
