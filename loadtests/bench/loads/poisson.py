"""An open loop over HTTP: `python -m loadtests.bench.loads.poisson HOST:PORT MIX PADDED SECONDS PER_S …`.

For each rate PER_S, requests of `sequences.py` are sent for SECONDS at the times of a Poisson process, whether or not
earlier ones are answered. A latency counts from the time at which its request should have been sent, so what waits
here, because the client is late or all connections are busy, counts too; timers wake once a millisecond. PADDED is 1 or
0. Prints a line of JSON: a list of loads.
"""

import sys
from dataclasses import asdict, dataclass

import numpy as np
import orjson
import uvloop

from loadtests.bench.loads.load import Load
from loadtests.bench.workloads.lengths import MIXES, is_short, lengths_of
from loadtests.bench.workloads.sequences import http_requests
from loadtests.open_loop.schedule import Array, arrivals
from loadtests.open_loop.sender import Offered, Sender, Unanswered
from loadtests.open_loop.sources import Cycle

_SEED = 17
_TOLD = 300  # characters of an answer that an error shows


class Refused(Exception):
    """The server does not answer as it should."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A request that is ready, whose answer may say anything."""

    request: bytes

    def whole(self) -> bytes:
        return self.request

    def check(self, body: bytes) -> None: ...


async def run(address: str, requests: list[bytes], short: Array, rates: list[float], seconds: float) -> list[Load]:
    """A load for each rate, one after the other.

    `short` says of each request whether its sequence is of the shortest quarter: bool `[requests]`.

    Raises:
        Refused: a request was refused, or there is none.
        Unanswered, OSError: as `Sender.offer`.
    """
    schedules = [arrivals(rate, seconds, _SEED + place) for place, rate in enumerate(rates)]
    if not all(due.size for due in schedules):
        raise Refused(f"there is nothing to send within {seconds:g} s at {min(rates):g} requests a second")
    sender, source = Sender(waiting=max(due.size for due in schedules)), Cycle([_Whole(each) for each in requests])
    try:
        await sender.connect(address)
        return [await _load(sender, due, source, short) for due in schedules]
    finally:
        sender.close()


async def _load(sender: Sender, due: Array, source: Cycle, short: Array) -> Load:
    shortest = short[(source.taken + np.arange(len(due))) % len(short)]
    offered = await sender.offer(due, source)
    _accept(offered)
    took_ms = (offered.answered_at - due) * 1000
    p50, p99 = np.percentile(took_ms, (50, 99))
    short_p99 = float(np.percentile(took_ms[shortest], 99)) if shortest.any() else None
    return Load(len(due), offered.seconds, float(p50), float(p99), offered.cpu_s, short_p99)


def _accept(offered: Offered) -> None:
    """Raises: Refused: not every request was answered with what was asked for."""
    for exchanged in offered.exchanges:
        assert exchanged is not None  # as many may wait as are due
        if refusal := exchanged.answer.refusal:
            raise Refused(f"{refusal} {exchanged.answer.body[:_TOLD]!r}")


def main(address: str, mix: str, padded: str, seconds: str, *rates: str) -> None:
    chosen = next(each for each in MIXES if each.name == mix)
    requests, short = http_requests(chosen, padded=padded == "1"), is_short(lengths_of(chosen))
    try:
        loads = uvloop.run(run(address, requests, short, [float(rate) for rate in rates], float(seconds)))
    except (Refused, Unanswered, OSError) as error:
        sys.exit(str(error))
    print(orjson.dumps([asdict(load) for load in loads]).decode())  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
