"""An open loop over HTTP: `python -m loadtests.bench.loads.poisson HOST:PORT MIX PADDED SECONDS PER_S …`.

For each rate PER_S, requests of `sequences.py` are sent for SECONDS at the times of a Poisson process, whether or not
earlier ones are answered. A latency counts from the time at which its request should have been sent, so what waits
here, because the client is late or all connections are busy, counts too; timers wake once a millisecond. PADDED is 1 or
0. Prints a line of JSON: a list of loads.
"""

import asyncio
import sys
import time
from collections import deque
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import orjson
import uvloop

from loadtests.bench.loads.load import Load
from loadtests.bench.workloads.lengths import MIXES, Array, arrivals, is_short, lengths_of
from loadtests.bench.workloads.sequences import http_requests

CONNECTIONS = 256
_SEED = 17
_DRAIN_S = 20.0  # how long the last answers may take
_TOLD = 300  # characters of an answer that an error shows
_FIELD = b"\r\ncontent-length:"


class Refused(Exception):
    """The server does not answer as it should."""


class Connection(asyncio.Protocol):
    """One request at a time; `answered(connection)` hears when its answer is complete."""

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._data = bytearray()
        self.sent = 0  # the request's place in the schedule

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        size = int(head.lower().partition(_FIELD)[2].partition(b"\r\n")[0])
        if len(body) < size:
            return
        if b" 200 " not in head[:16]:
            self._sender.fail(Refused(f"{bytes(head[:40])!r} {bytes(body[:_TOLD])!r}"))
            return
        self._data.clear()
        self._sender.answered(self)

    def connection_lost(self, reason: Exception | None) -> None:
        self._sender.fail(reason or ConnectionError("the server closed a connection"))


class Sender:
    """Sends requests in order, each at its time, over the first connection that is free."""

    def __init__(self, requests: list[bytes], short: Array) -> None:
        """`short` says of each request whether its sequence is of the shortest quarter: bool `[requests]`."""
        self._requests = requests
        self._short = short
        self._next = 0  # of the requests, over all schedules
        self._free: list[Connection] = []
        self._due: deque[int] = deque()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered_at: Array = np.empty(0)
        self._left = 0
        self._began = 0.0

    async def connect(self, address: str, connections: int) -> None:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(partial(Connection, self), host, int(port))
            self._free.append(connection)

    def close(self) -> None:
        """Let go of all connections; their ends are no failure any more."""
        self._failed.cancel()
        for connection in self._free:
            connection.transport.abort()

    def fail(self, reason: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(reason)

    def answered(self, connection: Connection) -> None:
        self._answered_at[connection.sent] = time.perf_counter() - self._began
        self._left -= 1
        if self._due:
            self._send(connection, self._due.popleft())
        else:
            self._free.append(connection)

    def _send(self, connection: Connection, place: int) -> None:
        connection.sent = place
        connection.transport.write(self._requests[(self._next + place) % len(self._requests)])

    async def offer(self, times: Array) -> Load:
        """Send a request at each of `times`, in seconds from now, and wait for the answers.

        Raises:
            Refused, OSError: a request was refused, or a connection lost.
        """
        self._answered_at, self._left = np.empty(len(times)), len(times)
        self._began, cpu = time.perf_counter(), time.process_time()
        at = 0
        while at < len(times):
            now = time.perf_counter() - self._began
            while at < len(times) and times[at] <= now:
                if self._free:
                    self._send(self._free.pop(), at)
                else:
                    self._due.append(at)
                at += 1
            if at < len(times):
                await asyncio.wait([self._failed], timeout=times[at] - now)
            if self._failed.done():
                self._failed.result()
        await self._drain()
        short = self._short[(self._next + np.arange(len(times))) % len(self._requests)]
        self._next += len(times)
        seconds, cpu_s = time.perf_counter() - self._began, time.process_time() - cpu
        took_ms = (self._answered_at - times) * 1000
        p50, p99 = np.percentile(took_ms, (50, 99))
        short_p99 = float(np.percentile(took_ms[short], 99)) if short.any() else None
        return Load(len(times), seconds, float(p50), float(p99), cpu_s, short_p99)

    async def _drain(self) -> None:
        until = time.perf_counter() + _DRAIN_S
        while self._left:
            await asyncio.wait([self._failed], timeout=0.005)
            if self._failed.done():
                self._failed.result()
            if time.perf_counter() > until:
                raise Refused(f"{self._left} requests were not answered {_DRAIN_S:g} s after the last one was sent")


async def run(address: str, requests: list[bytes], short: Array, rates: list[float], seconds: float) -> list[Load]:
    """A load for each rate, one after the other.

    Raises:
        Refused, OSError: as `Sender.offer`.
    """
    schedules = [arrivals(rate, seconds, _SEED + place) for place, rate in enumerate(rates)]
    if not all(times.size for times in schedules):
        raise Refused(f"there is nothing to send within {seconds:g} s at {min(rates):g} requests a second")
    sender = Sender(requests, short)
    try:
        await sender.connect(address, CONNECTIONS)
        return [await sender.offer(times) for times in schedules]
    finally:
        sender.close()


def main(address: str, mix: str, padded: str, seconds: str, *rates: str) -> None:
    chosen = next(each for each in MIXES if each.name == mix)
    requests, short = http_requests(chosen, padded=padded == "1"), is_short(lengths_of(chosen))
    try:
        loads = uvloop.run(run(address, requests, short, [float(rate) for rate in rates], float(seconds)))
    except (Refused, OSError) as error:
        sys.exit(str(error))
    print(orjson.dumps([asdict(load) for load in loads]).decode())  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
