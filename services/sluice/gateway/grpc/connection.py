"""One connection of HTTP/2 (by h2): frames to its calls, and back.

It knows windows, floods, and what its calls may hold together; what one call is, `call` knows (docs/adr/0009).
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

import h2.events
import structlog
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from sluice.gateway.grpc.call import STOPPED, WINDOW_STEP, Call, Methods
from sluice.gateway.grpc.http2 import STREAM_WINDOW, ServerSide
from sluice.gateway.grpc.life_cycle import Phase
from sluice.gateway.slices import Sliced

log = structlog.get_logger()

_CONNECTION_WINDOW = 4 * STREAM_WINDOW
_DEFAULT_WINDOW = 65_535
_INBOX_BYTES = 64 * 1024 * 1024  # of a connection's calls together, or of four messages if that is more
_UNSENT_BYTES = 16 * 1024 * 1024  # answers of a connection's calls; beyond it no call's next message is begun
_IDLE_EVENTS = 10_000  # events in _IDLE_S without a message or an end of a call; more of them are a flood
_IDLE_S = 60.0
_PARTING_S = 1.0  # in which a client that has said goodbye may open calls and leave by itself
_LINGER_S = 5.0  # for a client to read how its last call ended
_WRITE_BUFFER = 256 * 1024  # bytes that the socket has not taken; beyond it nothing is read or written


class GrpcProtocol(Sliced, asyncio.Protocol):
    """One connection. What a turn of the loop has to send on all its calls is written at once, at the turn's end."""

    def __init__(self, methods: Methods, bytes_limit: int, open: "set[GrpcProtocol]") -> None:
        self.bytes_limit = bytes_limit  # of one message
        self.h2 = ServerSide()
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
        self._context = copy_context()  # no call's own, whose trace others do not have
        self._writable = True
        self._parting: asyncio.TimerHandle | None = None  # the client has said goodbye
        self._leaving = False  # the connection ends with its last call
        self._stopping = False  # nothing is read or written any more
        self.inbox_bytes = 0  # of all calls: what has come and no handler has
        self.unsent_bytes = 0  # and what was answered and is not sent
        self.idle = 0  # events since a message came or a call was answered
        self._inbox_limit = max(4 * bytes_limit, _INBOX_BYTES)
        self._waiting_for_others: dict[Call, None] = {}  # who takes no message because of other calls' answers
        self._idle_since = 0.0
        self._heard: Mapping[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.RequestReceived: self._request,
            h2.events.DataReceived: self._data,
            h2.events.StreamEnded: self._sent_all,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._room,
            h2.events.RemoteSettingsChanged: self._room,
            h2.events.ConnectionTerminated: self._goodbye,
        }

    @property
    def held(self) -> bool:
        return not self._writable

    @property
    def busy(self) -> bool:
        """Whether it has calls."""
        return bool(self._calls)

    @property
    def overfed(self) -> bool:
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
        self._wanting[call] = None
        self._soon()

    def collect(self) -> None:
        if data := self.h2.data_to_send():
            self._written.append(data)

    def must_wait(self, call: Call) -> bool:
        if self.unsent_bytes < _UNSENT_BYTES:
            return False
        self._waiting_for_others[call] = None
        return True

    def ended(self, call: Call) -> None:
        del self._calls[call.id]
        self._wanting.pop(call, None)
        self._blocked.pop(call, None)
        self._waiting_for_others.pop(call, None)
        call.close()
        self._look_for_room()

    def drain(self) -> None:
        """Ask the client to make its next calls elsewhere. Those that it makes here are answered."""
        if not self._stopping:
            self.h2.say_goodbye(refuse=False)
            self._soon()

    def stop(self, *, cut: bool) -> None:
        """Take no more calls, and leave after the last one. Calls that the client still sends are cut, or all."""
        if self._stopping:
            return
        for call in list(self._calls.values()):
            if cut or call.phase is Phase.OPEN:
                call.fail(STOPPED)
        self.h2.say_goodbye(refuse=True)
        self._leaving = True
        self._flush()

    def abort(self) -> None:
        self.transport.abort()

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush, context=self._context)

    def _flush(self) -> None:
        self._flushing = False
        if self._stopping or not self._writable:
            return
        wanting, self._wanting = self._wanting, {}
        for call in wanting:
            if not call.push():
                self._blocked[call] = None
        self._look_for_room()
        if self._unread >= WINDOW_STEP:
            self.h2.increment_flow_control_window(self._unread)
            self._unread = 0
        self.collect()
        if self._written:
            self.transport.writelines(self._written)
            self._written = []
        if self._leaving and not self._calls:
            self._depart()

    def _look_for_room(self) -> None:
        if self._waiting_for_others and self.unsent_bytes < _UNSENT_BYTES:
            self._wanting |= self._waiting_for_others
            self._waiting_for_others.clear()
            self._soon()

    def _floods(self, events: list[h2.events.Event]) -> bool:
        """Whether too many events came since a message came or a call was answered. Data count if there are none."""
        now = self._loop.time()
        if now - self._idle_since > _IDLE_S:
            self.idle, self._idle_since = 0, now
        self.idle += sum(1 for event in events if not (isinstance(event, h2.events.DataReceived) and event.data))
        return self.idle > _IDLE_EVENTS

    def _depart(self) -> None:
        """Close in two steps, so that the client reads all: it is told what was taken of it, and closes first."""
        self._stopping = True
        self.h2.say_goodbye(refuse=True)
        self.transport.write(self.h2.data_to_send())
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._loop.call_later(_LINGER_S, self.transport.abort)

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

    def _goodbye(self, _: h2.events.ConnectionTerminated) -> None:
        """The client will leave. Its calls go on, and some clients open those that wait only now."""
        if self._parting is None:
            self._parting = self._loop.call_later(_PARTING_S, self._part)

    def _part(self) -> None:
        self._leaving = True
        self._soon()
