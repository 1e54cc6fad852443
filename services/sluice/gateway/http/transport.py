"""A connection as uvicorn sees it: not read while parts of what came before wait, and closed so that answers arrive.

It does not know HTTP.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Any, Protocol

from sluice.gateway.http.clocks import Clock
from sluice.gateway.slices import Sliced

_DRAIN_BYTES = 256 * 1024 * 1024
DRAIN_S = 30.0  # as nginx's lingering_time


class GatedTransport:
    """uvicorn's view of a connection, which it cannot read on while parts of what came before still wait."""

    def __init__(self, transport: Any, protocol: Sliced) -> None:
        self.behind: Any = transport.behind if isinstance(transport, GatedTransport) else transport
        self.write = self.behind.write
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.waits:
            self.behind.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


class Lingering(asyncio.Protocol):
    """Takes a connection over that is to be closed though its client still sends.

    Closing it would reset it, and the client might lose its answer. So it is closed on this side only, and what comes
    is thrown away until the client closes, too, or has sent too much, or for too long (RFC 9112, section 9.6).
    """

    def __init__(self, clock: "Clock[Lingering]", lost: Callable[[Exception | None], None]) -> None:
        self._clock = clock
        self._lost = lost
        self._left = _DRAIN_BYTES

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write_eof()
        transport.set_protocol(self)
        transport.resume_reading()
        self._clock.begin(self)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.stop(self)
        self._lost(exc)

    def end(self) -> None:
        self._transport.abort()


class Parting(Protocol):
    """A protocol that a connection can be taken from."""

    @property
    def sending(self) -> bool:
        """Whether the client is in the middle of a request, or has sent what has not been taken."""

    def abandon(self) -> None:
        """Nothing that comes is taken any more, and nobody gets an answer."""

    def connection_lost(self, exc: Exception | None) -> None: ...


class PartingTransport(GatedTransport):
    """It closes at once where the client sends nothing, and lingers where it does."""

    def __init__(self, transport: Any, protocol: Any, clock: Clock[Lingering]) -> None:
        super().__init__(transport, protocol)
        self._parting: Parting = protocol
        self._clock = clock
        self._lingers = False

    def is_closing(self) -> bool:
        return self._lingers or self.behind.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._parting.sending:
            self.behind.close()
            return
        self._lingers = True
        self.write = _to_nobody
        self._parting.abandon()
        Lingering(self._clock, self._parting.connection_lost).connection_made(self.behind)


def is_reset(transport: Any) -> bool:
    """Whether the client is known to be gone, also where nothing is read from it."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), 0)  # errors and the end of both directions are told without being asked for
    return bool(poll.poll(0))


def _to_nobody(_: Any) -> None: ...
