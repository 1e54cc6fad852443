"""One call: one stream of HTTP/2, from the client's header fields to our trailers.

It knows messages, windows, the deadline and the status; not the other calls, nor what its method does.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

import structlog
from h2.errors import ErrorCodes

from sluice.gateway.core.pending import BUG
from sluice.gateway.grpc.http2 import HEADER_BYTES, STREAM_WINDOW, ServerSide
from sluice.gateway.grpc.life_cycle import LIFE_CYCLE, Event, Phase
from sluice.gateway.trace import Within, names, within
from sluice.wire.grpc_frames import (
    BAD_REQUEST,
    ENCODINGS,
    CallFailed,
    Header,
    Inbox,
    answer_encoding,
    framed,
    is_grpc,
    malformed,
    read_timeout,
    trailers,
)

log = structlog.get_logger()

WINDOW_STEP = STREAM_WINDOW // 4  # windows are opened again by so much at a time
STOPPED = CallFailed("UNAVAILABLE", "This gateway has stopped.", [("sluice-code", "draining")])
_NAME_LIMIT = 100  # characters of a method's name of which another one may be meant
_FIELD_BYTES = 32  # what HTTP/2 adds to the size of each header field
_GRACE_S = 0.1  # who carries a call out knows its deadline, too, and can say more about it

_HEAD: list[Header] = [
    (b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,deflate,gzip"),
]  # fmt: skip
_HEADS = {b"": _HEAD, **{encoding: [*_HEAD, (b"grpc-encoding", encoding)] for encoding in ENCODINGS}}


class Handler(Protocol):
    """Carries out one call. Its methods may raise `CallFailed`, which ends the call."""

    @property
    def full(self) -> bool:
        """Whether the call's next message has to wait; asked again when messages have been sent."""

    def receive(self, message: bytes) -> None: ...

    def end(self) -> None:
        """The client has sent all of its messages."""

    def leave(self) -> None:
        """The call is over before its end: nobody waits for answers any more."""


class Connection(Protocol):
    """What a call needs of what carries it. Bytes are those of all its calls."""

    h2: ServerSide
    bytes_limit: int  # of one message
    inbox_bytes: int  # what has come and no handler has
    unsent_bytes: int  # what was answered and is not sent
    idle: int  # events since a message came or a call was answered

    @property
    def overfed(self) -> bool:
        """Whether the calls hold more bytes of the client than they may."""

    def must_wait(self, call: "Call") -> bool:
        """Whether so much is unsent that the call begins no message; when there is room, the call is pushed."""

    def wants(self, call: "Call") -> None:
        """The call has something to send, and is pushed."""

    def collect(self) -> None:
        """Take what HTTP/2 has written, before it grows: a large message would be moved with each frame."""

    def ended(self, call: "Call") -> None:
        """The call's stream is no more."""


class Call:
    """One call. Everything is sent when its connection pushes it."""

    __slots__ = (
        "_connection", "_credit", "_deadline", "_encoding", "_handler", "_head", "_inbox", "_kept", "_out", "_tail",
        "_timer", "_unread", "id", "metadata", "phase", "unsent", "unsent_bytes",
    )  # fmt: skip

    def __init__(self, connection: Connection, id: int) -> None:
        self.id = id
        self.metadata: Mapping[bytes, bytes] = {}  # the header fields that it began with
        self.phase = Phase.OPEN
        self.unsent = 0  # messages that the client has no room for yet
        self.unsent_bytes = 0
        self._connection = connection
        self._handler: Handler | None = None
        self._deadline: float | None = None  # when the client wants its answer, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._encoding = b""  # of our messages
        self._inbox = Inbox(connection.bytes_limit)
        self._kept = 0  # bytes of it that the connection has counted
        self._unread = 0  # bytes of the stream's window that the handler has no room for yet
        self._credit = 0  # and those that are to be given back
        self._head: list[Header] | None = None  # what begins our half; None: not wanted yet; empty: sent
        self._out: deque[bytes | memoryview] = deque()
        self._tail: list[Header] = []  # what ends our half

    def advance(self, event: Event) -> bool:
        """Move along the life cycle. False: the event cannot happen in this phase; nothing has changed."""
        following = LIFE_CYCLE[self.phase].get(event)
        if following is None:
            return False
        self.phase = following
        return True

    def begin(self, fields: Sequence[Header], methods: "Methods") -> None:
        """Find who carries the call out."""
        self.metadata = headers = dict(fields)
        if len(headers) < len(fields) and b"tracestate" in headers:  # which may come in parts
            headers[b"tracestate"] = b",".join(value for name, value in fields if name == b"tracestate")
        if wrong := malformed(fields):
            self.fail(CallFailed("INTERNAL", wrong, BAD_REQUEST))
        elif headers[b":method"] != b"POST":
            self._refuse([(b":status", b"405"), (b"allow", b"POST")])
        elif not is_grpc(headers.get(b"content-type", b"")):
            self._refuse([(b":status", b"415")])
        else:
            size = sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)
            self._guarded(self._find, headers, size, methods)

    def time_left(self) -> float | None:
        """Seconds until the client's deadline; None: it has said none."""
        return None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

    @property
    def names(self) -> dict[str, str]:
        """What a line in the log says of it."""
        return names(self.metadata.items(), self.metadata.get(b"x-request-id"))

    def open(self) -> None:
        """Tell the client that the call is carried out, before there is an answer."""
        if Event.SEND in LIFE_CYCLE[self.phase]:
            if self._head is None:
                self._head = _HEADS[self._encoding]
            self._connection.wants(self)

    def send(self, message: bytes) -> None:
        if Event.SEND in LIFE_CYCLE[self.phase]:
            frame = framed(message, self._encoding)
            self._out.append(frame)
            self.unsent += 1
            self._count_unsent(len(frame))
            if self._head is None:
                self._head = _HEADS[self._encoding]
            self._connection.wants(self)

    def finish(self, failure: CallFailed | None = None) -> None:
        """End the call; after a failure what was still to be sent is not."""
        if self.advance(Event.FINISH if failure is None else Event.FAIL):
            self._drop_inbox()
            if failure is not None:
                self._drop_out()
            fields = trailers(failure)
            self._tail = [*_HEAD, *fields] if self._head is None else fields
            self._connection.wants(self)

    def fail(self, failure: CallFailed) -> None:
        """End a call that is being carried out."""
        self.leave()
        self.finish(failure)

    def leave(self) -> None:
        """Nobody waits for the call any more."""
        if self._handler is not None:
            self._handler.leave()

    def close(self) -> None:
        """The stream is no more. What it held is given back, whoever still has the call."""
        self.advance(Event.CLOSE)
        self._drop_inbox()
        self._drop_out()
        self._handler = None
        if self._timer is not None:
            self._timer.cancel()

    def receive(self, data: bytes, window_bytes: int) -> None:
        """Bytes have come, which took `window_bytes` of the stream's window."""
        if self.phase is not Phase.OPEN:
            return
        self._unread += window_bytes
        self._inbox.feed(data)
        self._read()
        if self._connection.overfed and self.phase is Phase.OPEN:
            sentence = "The messages of this connection that are not complete, or wait, are too large together."
            self.fail(CallFailed("RESOURCE_EXHAUSTED", sentence, [("sluice-code", "body_too_large")]))

    def end(self) -> None:
        """The client has sent all."""
        self.advance(Event.END)
        self._read()

    def push(self) -> bool:
        """Give to HTTP/2 what it takes now. False: the client's windows do not take all there is."""
        if self.phase is Phase.CLOSED:
            return True
        h2 = self._connection.h2
        if self._head:
            h2.send_headers(self.id, self._head)
            self._head = []
        if self._credit and self.phase is Phase.OPEN:
            h2.increment_flow_control_window(self._credit, self.id)
            self._credit = 0
        if not self._push_messages(h2):
            return False
        if not self._tail:
            self._read()
            return True
        h2.send_headers(self.id, self._tail, end_stream=True)
        if self.phase is Phase.CUTTING:
            h2.reset_stream(self.id, ErrorCodes.NO_ERROR)
        self._connection.idle = 0
        self._connection.ended(self)
        return True

    def _find(self, headers: Mapping[bytes, bytes], size: int, methods: "Methods") -> None:
        if size > HEADER_BYTES:
            sentence = f"A call's metadata may have {HEADER_BYTES} bytes; {size} came."
            raise CallFailed("RESOURCE_EXHAUSTED", sentence, BAD_REQUEST)
        if timeout := headers.get(b"grpc-timeout"):
            self._limit(read_timeout(timeout))
        if encoding := headers.get(b"grpc-encoding"):
            self._inbox.encoding = encoding
            self._encoding = answer_encoding(encoding, headers.get(b"grpc-accept-encoding"))
        path = headers[b":path"]
        handler = methods.get(path)
        if handler is None:
            raise CallFailed("UNIMPLEMENTED", _no_method(path, methods))
        found = handler(self)
        context = None
        if b"traceparent" in headers:
            context = within(headers.items(), headers.get(b"x-request-id"))
        self._handler = found if context is None else Within(context, found)

    def _limit(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + timeout_s
        self._timer = loop.call_at(self._deadline + _GRACE_S, self._too_late)

    def _too_late(self) -> None:
        self.fail(CallFailed("DEADLINE_EXCEEDED", "The call's time is over.", [("sluice-code", "deadline_exceeded")]))

    def _read(self) -> None:
        """Hand the handler what it has room for, and let the client send as much again."""
        if self._handler is not None and Event.TAKE in LIFE_CYCLE[self.phase]:
            self._guarded(self._hand_over, self._handler)
        self._count_inbox()

    def _hand_over(self, handler: Handler) -> None:
        while not handler.full and not self._connection.must_wait(self):
            message = self._inbox.take()
            if message is None:
                self._ran_dry(handler)
                return
            self._connection.idle = 0
            handler.receive(message)

    def _ran_dry(self, handler: Handler) -> None:
        if self._unread >= WINDOW_STEP:
            self._credit += self._unread
            self._unread = 0
            self._connection.wants(self)
        if self.phase is Phase.HALF_CLOSED:
            if not self._inbox.empty:
                raise CallFailed("INTERNAL", "The call ended in the middle of a message.", BAD_REQUEST)
            self.advance(Event.DRAIN)
            handler.end()

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except CallFailed as failure:
            self.fail(failure)
        except Exception:
            log.exception("call failed", **self.names)
            self.fail(CallFailed("INTERNAL", BUG, [("sluice-code", "internal")]))

    def _refuse(self, fields: list[Header]) -> None:
        """Answer a request that is no call as HTTP does."""
        self.advance(Event.FINISH)
        self._tail = fields
        self._connection.wants(self)

    def _count_inbox(self) -> None:
        size = self._inbox.size
        self._connection.inbox_bytes += size - self._kept
        self._kept = size

    def _count_unsent(self, more: int) -> None:
        self.unsent_bytes += more
        self._connection.unsent_bytes += more

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._connection.inbox_bytes -= self._kept
        self._kept = 0

    def _drop_out(self) -> None:
        self._out.clear()
        self.unsent = 0
        self._count_unsent(-self.unsent_bytes)

    def _push_messages(self, h2: ServerSide) -> bool:
        while self._out:
            room = min(h2.local_flow_control_window(self.id), h2.max_outbound_frame_size)
            if room <= 0:
                return False
            h2.send_data(self.id, self._part(room))
            self._connection.collect()
        return True

    def _part(self, room: int) -> bytes:
        """The next messages that fit into so many bytes, or the beginning of one that does not."""
        out, parts, left = self._out, [], room
        while out and len(out[0]) <= left:
            left -= len(out[0])
            parts.append(out.popleft())
        self.unsent -= len(parts)
        if not parts:
            rest = memoryview(out[0])
            parts, out[0], left = [rest[:room]], rest[room:], 0
        self._count_unsent(left - room)
        return b"".join(parts)


Methods = Mapping[bytes, Callable[[Call], Handler]]


def _no_method(path: bytes, methods: Iterable[bytes]) -> str:
    """What to say of a method that there is not; which one may be meant."""
    name = path.decode("latin-1")
    close = get_close_matches(name[:_NAME_LIMIT], (each.decode() for each in methods), 1)
    return f"There is no method {name!r:.200}{f'; did you mean {close[0]!r}?' if close else '.'}"
