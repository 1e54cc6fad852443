"""An HTTP connection that carries one request at a time, at a few microseconds each.

It does not know what is asked, nor when.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

_SIZE = b"\r\ncontent-length:"
_CODE = b"\r\nsluice-code:"
_EMPTY = 204  # the status of an answer without a body, which has no length either


@dataclass(frozen=True, slots=True)
class Answer:
    """`code` is the API's word for an error, if it is one of the gateway's."""

    status: int
    body: bytes
    code: str = ""

    @property
    def refusal(self) -> str:
        """The error's code, or else its status; empty if the answer is none."""
        return "" if 200 <= self.status < 300 else self.code or str(self.status)


class Line(Protocol):
    """What carries a request at a time."""

    def send(self, request: bytes) -> None: ...

    def close(self) -> None: ...


class Owner(Protocol):
    """Whom a connection tells what comes."""

    def answered(self, line: Line, answer: Answer) -> None: ...

    def lost(self, line: Line, reason: Exception) -> None: ...


class Connection(asyncio.Protocol):
    """Tells its owner when an answer is complete, and when the server closes the connection."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._data = bytearray()
        self._ours = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        """Let go of it at once; its end is not told."""
        self._ours = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        status, low = int(head[9:12]), bytes(head.lower())
        if status != _EMPTY and _SIZE not in low:
            self._owner.lost(self, ConnectionError("expected answers with a content-length, and one came without"))
            return
        if status != _EMPTY and len(body) < int(_field(low, _SIZE)):
            return
        self._data.clear()
        code = "" if status < 400 else _field(low, _CODE).decode().strip()
        self._owner.answered(self, Answer(status, bytes(body), code))

    def connection_lost(self, reason: Exception | None) -> None:
        if not self._ours:
            self._owner.lost(self, reason or ConnectionError("the server closed a connection"))


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(name)[2].partition(b"\r\n")[0]
