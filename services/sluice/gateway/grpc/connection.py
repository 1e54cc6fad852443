"""gRPC on a connection: HTTP/2 frames (by h2) to messages of calls, and back.

It knows streams, windows, deadlines and statuses; what a method does is its handler's (docs/adr/0009).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import h2.events
import structlog
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame

from sluice.gateway.core.pending import BUG
from sluice.gateway.slices import Sliced
from sluice.wire.grpc_frames import BAD_REQUEST, CallFailed, Header, Inbox, framed, is_grpc, read_timeout, trailers

log = structlog.get_logger()

# h2 makes this text of every frame, of all its bytes, for a log that nobody keeps.
DataFrame.__repr__ = object.__repr__  # type: ignore[method-assign]

STREAM_WINDOW = 1024 * 1024  # bytes of one call that may come before we have read what came before
_CONNECTION_WINDOW = 4 * STREAM_WINDOW
_DEFAULT_WINDOW = 65_535
_WINDOW_STEP = STREAM_WINDOW // 4  # windows are opened again by so much at a time
_CONCURRENT_CALLS = 1000
_FRAME_BYTES = 64 * 1024
_HEADER_BYTES = 16 * 1024  # of one call's metadata
_HEADER_BYTES_READ = 4 * _HEADER_BYTES  # what is read of it to refuse the call alone; beyond, the connection ends
_FIELD_BYTES = 32  # what HTTP/2 adds to the size of each header field
_INBOX_BYTES = 64 * 1024 * 1024  # of a connection's calls together, or of four messages if that is more
_UNSENT_BYTES = 16 * 1024 * 1024  # answers of a connection's calls; beyond it no call's next message is begun
_IDLE_EVENTS = 10_000  # events in _IDLE_S without a message or an end of a call; more of them are a flood
_IDLE_S = 60.0
_WRITE_BUFFER = 256 * 1024  # bytes that the socket has not taken; beyond it nothing is read or written
_GRACE_S = 0.1  # who carries a call out knows its deadline, too, and can say more about it

_HEAD: list[Header] = [
    (b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity"),
]  # fmt: skip


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


class Call:
    """One call: an HTTP/2 stream. Everything is sent when its connection flushes."""

    __slots__ = (
        "_closed", "_connection", "_credit", "_deadline", "_drained", "_ended", "_handler", "_head_sent", "_inbox",
        "_kept", "_last", "_opened", "_out", "_timer", "_unread", "id", "metadata", "unsent", "unsent_bytes",
    )  # fmt: skip

    def __init__(self, connection: "GrpcProtocol", id: int) -> None:
        self.id = id
        self.metadata: Mapping[bytes, bytes] = {}  # the header fields that it began with
        self._deadline: float | None = None  # when the client wants its answer, by the loop's clock
        self.unsent = 0  # messages that the client has no room for yet
        self.unsent_bytes = 0
        self._connection = connection
        self._handler: Handler | None = None
        self._inbox = Inbox(connection.bytes_limit)
        self._kept = 0  # bytes of it that the connection has counted
        self._unread = 0  # bytes of the stream's window that the handler has no room for yet
        self._credit = 0  # and those that are to be given back
        self._ended = False  # the client has sent all
        self._drained = False  # and the handler has it
        self._out: deque[bytes | memoryview] = deque()
        self._opened = self._head_sent = False
        self._last: list[Header] | None = None  # what ends the stream
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self, fields: Sequence[Header], methods: "Methods") -> None:
        """Find who carries the call out."""
        self.metadata = headers = dict(fields)
        size = sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)
        if headers[b":method"] != b"POST":
            self._end_with([(b":status", b"405"), (b"allow", b"POST")])
        elif not is_grpc(headers.get(b"content-type", b"")):
            self._end_with([(b":status", b"415")])
        else:
            self._guarded(self._find, headers, size, methods)

    def time_left(self) -> float | None:
        """Seconds until the client's deadline; None: it has said none."""
        return None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

    def open(self) -> None:
        """Tell the client that the call is carried out, before there is an answer."""
        self._opened = True
        self._connection.wants(self)

    def send(self, message: bytes) -> None:
        if self._closed:
            return
        frame = framed(message)
        self._out.append(frame)
        self.unsent += 1
        self._count_unsent(len(frame))
        self._opened = True
        self._connection.wants(self)

    def finish(self, failure: CallFailed | None = None) -> None:
        """End the call; after a failure what was still to be sent is not."""
        if self._closed:
            return
        self._drop_inbox()
        if failure is not None:
            self._drop_out()
        fields = trailers(failure)
        self._end_with(fields if self._opened else [*_HEAD, *fields])

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
        self._closed = True
        self._drop_inbox()
        self._drop_out()
        self._handler = None
        if self._timer is not None:
            self._timer.cancel()

    def receive(self, data: bytes, window_bytes: int) -> None:
        """Bytes have come, which took `window_bytes` of the stream's window."""
        if self._last is None:
            self._unread += window_bytes
            self._inbox.feed(data)
            self._read()
            if self._connection.overfed and self._last is None:
                sentence = "The messages of this connection that are not complete, or wait, are too large together."
                self.fail(CallFailed("RESOURCE_EXHAUSTED", sentence, [("sluice-code", "body_too_large")]))

    def end(self) -> None:
        """The client has sent all."""
        self._ended = True
        self._read()

    def push(self) -> bool:
        """Give to HTTP/2 what it takes now. False: the client's windows do not take all there is."""
        if self._closed:
            return True
        h2 = self._connection.h2
        if self._opened and not self._head_sent:
            h2.send_headers(self.id, _HEAD)
            self._head_sent = True
        if self._credit and not self._ended:
            h2.increment_flow_control_window(self._credit, self.id)
            self._credit = 0
        if not self._push_messages(h2):
            return False
        if self._last is not None:
            self._push_last(h2, self._last)
        else:
            self._read()
        return True

    def _find(self, headers: Mapping[bytes, bytes], size: int, methods: "Methods") -> None:
        if size > _HEADER_BYTES:
            sentence = f"A call's metadata may have {_HEADER_BYTES} bytes; {size} came."
            raise CallFailed("RESOURCE_EXHAUSTED", sentence, BAD_REQUEST)
        if timeout := headers.get(b"grpc-timeout"):
            self._limit(read_timeout(timeout))
        path = headers[b":path"]
        handler = methods.get(path)
        if handler is None:
            raise CallFailed("UNIMPLEMENTED", f"There is no method {path.decode('latin-1')!r:.200}.")
        self._handler = handler(self)

    def _limit(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + timeout_s
        self._timer = loop.call_at(self._deadline + _GRACE_S, self._too_late)

    def _too_late(self) -> None:
        self.fail(CallFailed("DEADLINE_EXCEEDED", "The call's time is over.", [("sluice-code", "deadline_exceeded")]))

    def _read(self) -> None:
        """Hand the handler what it has room for, and let the client send as much again."""
        if self._handler is not None and self._last is None and not self._drained:
            self._guarded(self._hand_over, self._handler)
        self._count_inbox()

    def _hand_over(self, handler: Handler) -> None:
        while not handler.full:
            if self._connection.full:
                self._connection.waits_for_others(self)
                return
            message = self._inbox.take()
            if message is None:
                self._ran_dry(handler)
                return
            self._connection.progressed()
            handler.receive(message)

    def _ran_dry(self, handler: Handler) -> None:
        if self._unread >= _WINDOW_STEP:
            self._credit += self._unread
            self._unread = 0
            self._connection.wants(self)
        if self._ended:
            if not self._inbox.empty:
                raise CallFailed("INTERNAL", "The call ended in the middle of a message.", BAD_REQUEST)
            self._drained = True
            handler.end()

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except CallFailed as failure:
            self.fail(failure)
        except Exception:
            log.exception("call failed")
            self.fail(CallFailed("INTERNAL", BUG, [("sluice-code", "internal")]))

    def _end_with(self, fields: list[Header]) -> None:
        self._last = fields
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
        self._count_inbox()

    def _drop_out(self) -> None:
        self._out.clear()
        self.unsent = 0
        self._count_unsent(-self.unsent_bytes)

    def _push_messages(self, h2: H2Connection) -> bool:
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

    def _push_last(self, h2: H2Connection, fields: list[Header]) -> None:
        h2.send_headers(self.id, fields, end_stream=True)
        if not self._ended:
            h2.reset_stream(self.id, ErrorCodes.NO_ERROR)
        self._connection.progressed()
        self._connection.ended(self)


Methods = Mapping[bytes, Callable[[Call], Handler]]


Answered = Callable[[bytes | CallFailed | None], None]
Begin = Callable[[bytes, Call, Answered], Callable[[], object]]


class Unary:
    """A call with one message of the client. `begin` gets it and whom to answer, once; it returns what cancels it.

    The answer is a message, or None where `begin` has sent all messages itself. `begin` may raise `CallFailed`.
    """

    __slots__ = ("_begin", "_call", "_cancel", "_message")

    full = False

    def __init__(self, begin: Begin, call: Call) -> None:
        self._begin = begin
        self._call = call
        self._message: bytes | None = None
        self._cancel: Callable[[], object] | None = None

    def receive(self, message: bytes) -> None:
        if self._message is not None:
            raise CallFailed("INTERNAL", "This method takes one message; more than one came.", BAD_REQUEST)
        self._message = message

    def end(self) -> None:
        if self._message is None:
            raise CallFailed("INTERNAL", "This method takes one message; none came.", BAD_REQUEST)
        self._cancel = self._begin(self._message, self._call, self._answer)

    def leave(self) -> None:
        if self._cancel is not None:
            self._cancel()

    def _answer(self, answer: bytes | CallFailed | None) -> None:
        if isinstance(answer, CallFailed):
            self._call.finish(answer)
            return
        if answer is not None:
            self._call.send(answer)
        self._call.finish()


def awaited(act: Callable[[bytes, Call], Awaitable[bytes]]) -> Begin:
    """What `Unary` begins, for a call that is carried out in a task; `act` may raise `CallFailed`."""

    async def run(message: bytes, call: Call, done: Answered) -> None:
        try:
            answer: bytes | CallFailed = await act(message, call)
        except CallFailed as failure:
            answer = failure
        done(answer)

    return _in_task(run)


def streamed(act: Callable[[bytes, Call], AsyncGenerator[bytes]]) -> Begin:
    """As `awaited`, for a call with any number of answers. Those that the client has no room for wait in the call."""

    async def run(message: bytes, call: Call, done: Answered) -> None:
        try:
            async with aclosing(act(message, call)) as answers:
                async for answer in answers:
                    call.send(answer)
        except CallFailed as failure:
            done(failure)
        else:
            done(None)

    return _in_task(run)


def _in_task(run: Callable[[bytes, Call, Answered], Coroutine[Any, Any, None]]) -> Begin:
    def begin(message: bytes, call: Call, done: Answered) -> Callable[[], object]:
        return asyncio.get_running_loop().create_task(run(message, call, done)).cancel

    return begin


class GrpcProtocol(Sliced, asyncio.Protocol):
    """One connection. What a turn of the loop has to send on all its calls is written at once, at the turn's end."""

    def __init__(self, methods: Methods, bytes_limit: int, open: "set[GrpcProtocol]") -> None:
        self.bytes_limit = bytes_limit  # of one message
        self.h2 = _server_side()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._methods = methods
        self._open = open
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Call] = {}
        self._wanting: dict[Call, None] = {}  # who has something to send, in order
        self._blocked: dict[Call, None] = {}  # who waits for the client's windows
        self._unread = 0  # bytes of the connection's window that are not given back
        self._written: list[bytes] = []  # what is sent when this turn's calls have had theirs
        self._flushing = False
        self._writable = True
        self._stopping = False
        self.inbox_bytes = 0  # of all calls: what has come and no handler has
        self.unsent_bytes = 0  # and what was answered and is not sent
        self._inbox_limit = max(4 * bytes_limit, _INBOX_BYTES)
        self._waiting_for_others: dict[Call, None] = {}  # who takes no message because of other calls' answers
        self._idle = 0  # events without progress
        self._idle_since = 0.0
        self._heard: Mapping[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.RequestReceived: self._request,
            h2.events.DataReceived: self._data,
            h2.events.StreamEnded: self._sent_all,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._room,
            h2.events.RemoteSettingsChanged: self._room,
            h2.events.ConnectionTerminated: self._goaway,
        }

    @property
    def held(self) -> bool:
        return not self._writable

    @property
    def full(self) -> bool:
        """Whether so many answers are unsent that nothing more is to be begun."""
        return self.unsent_bytes >= _UNSENT_BYTES

    @property
    def overfed(self) -> bool:
        """Whether the calls hold more bytes of the client than they may."""
        return self.inbox_bytes > self._inbox_limit

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._open.add(self)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._soon()

    def take(self, data: bytes) -> None:
        if self._stopping:
            return
        try:
            events = self.h2.receive_data(data)
        except ProtocolError as error:
            log.info("connection refused", reason=str(error) or type(error).__name__)
            self._leave()
            return
        if self._floods(events):
            log.info("connection refused", reason="too many frames without a request")
            self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._leave()
            return
        for event in events:
            hear = self._heard.get(type(event))
            if hear is not None:
                hear(event)
        self._soon()

    def pause_writing(self) -> None:
        """The client does not read: it is not read either, as there are frames that have to be answered."""
        self._writable = False
        self._pause()

    def resume_writing(self) -> None:
        self._writable = True
        if not self.waits:
            self.transport.resume_reading()
        self._soon()

    def connection_lost(self, reason: Exception | None) -> None:
        self._stopping = True
        self.forget()
        self._open.discard(self)
        self._lose_calls()
        if not self.lost.done():
            self.lost.set_result(None)

    def wants(self, call: Call) -> None:
        """The call has something to send."""
        self._wanting[call] = None
        self._soon()

    def collect(self) -> None:
        """Take what HTTP/2 has written, before it grows: a large message would be moved with each frame."""
        if data := self.h2.data_to_send():
            self._written.append(data)

    def waits_for_others(self, call: Call) -> None:
        """The call takes messages again when the connection is not full any more."""
        self._waiting_for_others[call] = None

    def progressed(self) -> None:
        """A message has come, or a call has ended."""
        self._idle = 0

    def ended(self, call: Call) -> None:
        """The call's stream is no more."""
        del self._calls[call.id]
        self._wanting.pop(call, None)
        self._blocked.pop(call, None)
        self._waiting_for_others.pop(call, None)
        call.close()
        self._look_for_room()

    def stop(self) -> None:
        """End every call, and ask the client to go."""
        for call in list(self._calls.values()):
            call.fail(CallFailed("UNAVAILABLE", "This gateway has stopped.", [("sluice-code", "draining")]))
        self._flush()
        if not self._stopping:
            self.h2.close_connection()
            self._stopping = True
            self.transport.write(self.h2.data_to_send())

    def abort(self) -> None:
        self.transport.abort()

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._stopping or not self._writable:
            return
        wanting, self._wanting = self._wanting, {}
        for call in wanting:
            if not call.push():
                self._blocked[call] = None
        self._look_for_room()
        if self._unread >= _WINDOW_STEP:
            self.h2.increment_flow_control_window(self._unread)
            self._unread = 0
        self.collect()
        if self._written:
            self.transport.writelines(self._written)
            self._written = []

    def _look_for_room(self) -> None:
        if self._waiting_for_others and not self.full:
            self._wanting |= self._waiting_for_others
            self._waiting_for_others.clear()
            self._soon()

    def _floods(self, events: list[h2.events.Event]) -> bool:
        """Whether there were too many events since a message came or a call ended. Data count if there are none."""
        now = self._loop.time()
        if now - self._idle_since > _IDLE_S:
            self._idle, self._idle_since = 0, now
        self._idle += sum(1 for event in events if not (isinstance(event, h2.events.DataReceived) and event.data))
        return self._idle > _IDLE_EVENTS

    def _leave(self) -> None:
        """The connection cannot be used any more; the client is told why, if it listens."""
        self._stopping = True
        self._lose_calls()
        self.transport.write(self.h2.data_to_send())
        self.transport.close()

    def _lose_calls(self) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.leave()
            call.close()
        for waiting in (self._wanting, self._blocked, self._waiting_for_others):
            waiting.clear()

    def _request(self, event: h2.events.RequestReceived) -> None:
        call = self._calls[event.stream_id] = Call(self, event.stream_id)
        call.begin(event.headers, self._methods)

    def _data(self, event: h2.events.DataReceived) -> None:
        self._unread += event.flow_controlled_length
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.receive(event.data, event.flow_controlled_length)

    def _sent_all(self, event: h2.events.StreamEnded) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.end()

    def _reset(self, event: h2.events.StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.leave()
            self.ended(call)

    def _room(self, _: h2.events.Event) -> None:
        """The client takes more."""
        self._wanting |= self._blocked
        self._blocked.clear()

    def _goaway(self, _: h2.events.ConnectionTerminated) -> None:
        self._leave()


def _server_side() -> H2Connection:
    config = H2Configuration(
        client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = H2Connection(config)
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: _CONCURRENT_CALLS,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_BYTES,
        },
    )
    connection.max_inbound_frame_size = _FRAME_BYTES
    connection.decoder.max_header_list_size = _HEADER_BYTES_READ
    return connection
