"""HTTP byte by byte: what no client library would send, and what comes back, unread or in pieces."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway.here import PATIENCE_S, Here


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_refused(self, status: int, code: str) -> bool:
        return (self.status, self.headers["sluice-code"]) == (status, code) and bool(self.headers["x-request-id"])


class Connection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        """Each part in a packet of its own, as far as one can tell."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            assert len(headers) == len(lines), f"a header came twice: {lines}"
            status = int(first.split()[1])
            size = 0 if method == "HEAD" or status in (100, 204) else int(headers["content-length"])
            return Answer(status, headers, await self.reader.readexactly(size))

    async def at_end(self) -> bool:
        """Whether the server has closed, and nothing else came."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""

    async def leave(self) -> None:
        self.writer.transport.abort()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def connected(here: Here) -> AsyncIterator[Connection]:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", here.port))
    try:
        yield connection
    finally:
        await connection.leave()


def request(path: str, body: Any = None, *, method: str = "POST", version: str = "1.1", **headers: str) -> bytes:
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", "Host: g", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
