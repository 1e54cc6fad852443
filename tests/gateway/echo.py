"""A server of echoes behind our HTTP/2, and what its handlers have heard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from sluice.gateway.grpc.connection import GrpcProtocol
from sluice.gateway.grpc.handlers import Unary, awaited
from sluice.wire.grpc_frames import CallFailed
from tests.gateway.here import eventually

LIMIT = 8 * 1024 * 1024
ONCE, EACH, NEVER, BUG, REFUSED = "/test.Echo/Once", "/test.Echo/Each", "/test.Echo/Never", "/test.Echo/Bug", "/test/No"
LATER = "/test.Echo/Later"


class Each:
    """Answers each message with itself; as many as `room` may wait to be sent."""

    room = 64

    def __init__(self, served, call):
        self._served = served
        self._call = call
        call.open()

    @property
    def full(self):
        return self._call.unsent >= self.room

    def receive(self, message):
        self._served.received += 1
        self._call.send(message)

    def end(self):
        self._call.finish()

    def leave(self):
        self._served.left += 1


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = []
        self.reading = True
        self.closing = False

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def set_write_buffer_limits(self, high): ...

    def write(self, data):
        self.written.append(data)

    def writelines(self, parts):
        self.write(b"".join(parts))

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


@dataclass
class Served:
    """A server of echoes, and what its handlers have heard."""

    port: int = 0
    received: int = 0
    begun: int = 0
    left: int = 0
    connections: set[GrpcProtocol] = field(default_factory=set)
    now: asyncio.Event = field(default_factory=asyncio.Event)  # lets `later` answer

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def connection(self) -> GrpcProtocol:
        """A new one, without a socket."""
        unary = {ONCE: self.once, LATER: self.later, NEVER: self.never, REFUSED: self.refused}
        methods = {path.encode(): partial(Unary, awaited(act)) for path, act in unary.items()}
        methods[EACH.encode()] = partial(Each, self)
        methods[BUG.encode()] = lambda call: 1 / 0
        return GrpcProtocol(methods, LIMIT, self.connections)

    def piped(self) -> tuple[GrpcProtocol, Pipe]:
        """A new connection, and what it writes."""
        connection, pipe = self.connection(), Pipe()
        connection.connection_made(pipe)
        return connection, pipe

    async def once(self, message, call):
        return message

    async def later(self, message, call):
        self.begun += 1
        await self.now.wait()
        return message

    async def never(self, message, call):
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.left += 1

    async def bug(self, message, call):
        raise ZeroDivisionError

    async def refused(self, message, call):
        raise CallFailed("NOT_FOUND", "Not “here”.", [("sluice-code", "nowhere")])


@asynccontextmanager
async def echoes() -> AsyncIterator[Served]:
    served = Served()
    server = await asyncio.get_running_loop().create_server(served.connection, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for connection in list(served.connections):
            connection.abort()
        await eventually(lambda: not served.connections)
