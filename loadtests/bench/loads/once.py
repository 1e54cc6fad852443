"""Sends many HTTP requests, each exactly once, over a few connections: opens sessions, and makes their first steps."""

import asyncio
from collections.abc import Iterator

import uvloop

from loadtests.processes import Failed

_CONNECTIONS = 64
_TOLD = 300  # characters of an answer that an error shows


def send_once(address: str, requests: Iterator[bytes], connections: int = _CONNECTIONS) -> None:
    """Send them, in any order; over one connection: one after the other.

    Raises:
        Failed: one was refused, or the connection was lost.
    """
    uvloop.run(_send(address, requests, connections))


async def _send(address: str, requests: Iterator[bytes], connections: int) -> None:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(_one_by_one(host, int(port), requests))
    except* (OSError, EOFError, Failed) as errors:
        first = errors.exceptions[0]
        raise first if isinstance(first, Failed) else Failed(f"{address}: {first}") from None


async def _one_by_one(host: str, port: int, requests: Iterator[bytes]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for request in requests:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]))
            if not head.startswith(b"http/1.1 2"):
                path = request.partition(b" HTTP")[0].decode()
                raise Failed(f"{path} was refused: {body[:_TOLD].decode(errors='replace')}")
    finally:
        writer.close()
