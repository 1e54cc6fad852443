"""Steps sessions over WebSockets, one each: `python -m loadtests.bench.loads.websocket HOST:PORT SOCKETS SECONDS`.

The frames are made and read here (RFC 6455), as a library costs more than the gateway does. Prints a line of JSON.
"""

import asyncio
import struct
import sys
from functools import partial
from typing import Any

import uvloop

from loadtests.bench.loads.load import Load, Meter, measure, printed
from loadtests.bench.workloads.steps import NARROW, STEP_BODY, session

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_CONNECT_S = 10
_TOLD = 300  # characters of an answer that an error shows


class Refused(Exception):
    """The gateway does not answer as it should."""


def frame(kind: int, payload: bytes) -> bytes:
    """A client's frame; its mask of zeros leaves the payload as it is."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return bytes([0x80 | kind]) + length + b"\0\0\0\0" + payload


def split(data: bytearray) -> list[tuple[int, bytes]]:
    """Take the complete frames of a server out of `data`: kinds and payloads."""
    at, frames = 0, []
    while len(data) - at >= 4 or (len(data) - at >= 2 and data[at + 1] < 126):
        size, start = data[at + 1], at + 2
        if size >= 126:
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start])
        if len(data) < start + size:
            break
        frames.append((data[at] & 15, bytes(data[start : start + size])))
        at = start + size
    del data[:at]
    return frames


class Client(asyncio.Protocol):
    """One socket, one session: the next step is sent when the answer to the last one has come."""

    _step = frame(_TEXT, STEP_BODY)

    def __init__(self, index: int, meter: Meter, failed: "asyncio.Future[None]") -> None:
        self._index = index
        self._meter = meter
        self._failed = failed
        self._data = bytearray()
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            f"GET /v1/sessions/{session(NARROW, self._index)}/stream HTTP/1.1\r\nhost: localhost\r\n"
            "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: c2x1aWNlIGxvYWQgdGVzdA==\r\n\r\n".encode()
        )

    def start(self) -> None:
        """Send the first step."""
        self._transport.write(self._step)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._is_open and not self._upgraded():
            return
        for kind, payload in split(self._data):
            if kind == _TEXT and payload.startswith(b'{"outputs"'):
                self._meter.answered([self._index])
                self._transport.write(self._step)
            elif kind == _PING:
                self._transport.write(frame(_PONG, payload))
            elif kind != _PONG:
                self._fail(Refused(f"the gateway sent {payload[:_TOLD]!r}"))

    def connection_lost(self, reason: Exception | None) -> None:
        self._fail(reason or ConnectionError("the gateway closed the connection"))

    def _upgraded(self) -> bool:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        status = head.split(b"\r\n")[0].decode(errors="replace")
        if " 101 " not in status:
            self._fail(Refused(f"asked for a WebSocket, the gateway answered {status!r} {bytes(rest[:_TOLD])!r}"))
            return False
        self._data, self._is_open = rest, True
        self.opened.set_result(None)
        return True

    def _fail(self, reason: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(reason)


async def run(address: str, sockets: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    meter = Meter(sockets)
    host, _, port = address.rpartition(":")
    pairs = [
        await loop.create_connection(partial(Client, index, meter, failed), host, int(port)) for index in range(sockets)
    ]
    try:
        async with asyncio.timeout(_CONNECT_S):
            for _, client in pairs:
                await asyncio.wait([client.opened, failed], return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
        for _, client in pairs:
            client.start()
        return await measure(meter, failed, seconds)
    finally:
        for transport, _ in pairs:
            transport.abort()


def main(address: str, sockets: str, seconds: str) -> None:
    try:
        load = uvloop.run(run(address, int(sockets), float(seconds)))
    except (Refused, OSError) as error:
        sys.exit(str(error))
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
