"""Generates for many clients at once: `python -m loadtests.bench.loads.generate HOST:PORT MODE CLIENTS SECONDS`.

MODE is `running`: each client asks again when it is answered; `static`: all ask again when all are answered, as in a
batch that nobody joins or leaves; or `stream`: as `running`, with server-sent events. What is counted are tokens, as
each request gets as many as it asks for; latencies are of whole requests, with `stream` of first tokens. Prints a line
of JSON.
"""

import asyncio
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import uvloop

from loadtests.bench.loads.load import WARM_UP_S, Load, printed
from loadtests.bench.workloads.generation import http_requests, steps

MODES = ("running", "static", "stream")
_LIMIT_S = 60.0
_TOLD = 300  # characters of an answer that an error shows
_FIRST, _DONE, _ERROR = b"event: token", b"event: done", b"event: error"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Refused(Exception):
    """The gateway does not answer as it should."""


class Client(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: "GenerateLoad") -> None:
        self._load = load
        self._data = bytearray()
        self._sent_at = 0.0
        self._first_at: float | None = None
        self._tokens = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes, tokens: int) -> None:
        self._tokens, self._first_at, self._sent_at = tokens, None, time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._first_at is None and _FIRST in self._data:
            self._first_at = time.perf_counter()
        if not self._is_whole():
            return
        told, self._data = self._data, bytearray()
        if not told.startswith(b"HTTP/1.1 200") or _ERROR in told:
            self._load.fail(Refused(f"the gateway answered {bytes(told[-_TOLD:])!r}"))
            return
        until = time.perf_counter() if self._first_at is None else self._first_at
        self._load.answered(self, self._tokens, until - self._sent_at)

    def _is_whole(self) -> bool:
        head, end, body = self._data.partition(b"\r\n\r\n")
        size = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if size:
            return len(body) >= int(size)
        return bool(end) and body.endswith(_LAST_CHUNK) and _DONE in body

    def connection_lost(self, reason: Exception | None) -> None:
        self._load.fail(reason or ConnectionError("the gateway closed a connection"))


class GenerateLoad:
    """The clients of a run, and what they have measured since `begin`."""

    def __init__(self, mode: str) -> None:
        self._requests = http_requests(stream=mode == "stream")
        self._together = mode == "static"
        self._clients: list[Client] = []
        self._idle: list[Client] = []
        self._sent = 0
        self._tokens = 0
        self._latencies: list[float] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._border: asyncio.Future[None] | None = None

    async def connect(self, address: str, clients: int) -> None:
        host, _, port = address.rpartition(":")
        for _ in range(clients):
            make = partial(Client, self)
            _, client = await asyncio.get_running_loop().create_connection(make, host, int(port))
            self._clients.append(client)

    def close(self) -> None:
        self._failed.cancel()
        for client in self._clients:
            client.transport.abort()

    def fail(self, reason: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(reason)

    def answered(self, client: Client, tokens: int, latency_s: float) -> None:
        """A client's request is done: it asks again now, or when the others are done too."""
        self._tokens += tokens
        self._latencies.append(latency_s)
        self._idle.append(client)
        if self._together and len(self._idle) < len(self._clients):
            return
        if self._border is not None and not self._border.done():
            self._border.set_result(None)  # before more is sent, so that what counts is whole
        self._send()

    def _send(self) -> None:
        requests, asked = self._requests, steps()
        for client in self._idle:
            place = self._sent % len(requests)
            self._sent += 1
            client.send(requests[place], asked[place])
        self._idle = []

    async def measured(self, seconds: float) -> Load:
        """Let the clients ask for a while; time is taken at an answer, of a batch at its end.

        Raises:
            Refused, OSError: a request was refused, or a connection lost.
            TimeoutError: it takes much too long.
        """
        self._idle = self._clients.copy()
        self._send()
        await self._wait(WARM_UP_S)
        self._tokens, self._latencies = 0, []
        began, cpu = time.perf_counter(), time.process_time()
        await self._wait(seconds)
        passed, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        p50, p99 = np.percentile(self._latencies, (50, 99)) * 1000
        return Load(self._tokens, passed, float(p50), float(p99), cpu_s)

    async def _wait(self, seconds: float) -> None:
        """For so long, and then until an answer or a whole batch has come."""
        await asyncio.wait([self._failed], timeout=seconds)
        self._border = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(_LIMIT_S):
            await asyncio.wait([self._failed, self._border], return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            self._failed.result()


async def run(address: str, mode: str, clients: int, seconds: float) -> Load:
    load = GenerateLoad(mode)
    try:
        await load.connect(address, clients)
        return await load.measured(seconds)
    finally:
        load.close()


def main(address: str, mode: str, clients: str, seconds: str) -> None:
    try:
        load = uvloop.run(run(address, mode, int(clients), float(seconds)))
    except (Refused, OSError) as error:
        sys.exit(str(error) or type(error).__name__)
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
