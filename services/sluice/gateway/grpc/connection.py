"""One connection of HTTP/2 (by h2): frames to its calls, and back.

It knows windows, floods, and what its calls may hold together; what one call is, `call` knows (docs/adr/0009).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import h2.events
import structlog
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame

from sluice.gateway.grpc.call import HEADER_BYTES, STREAM_WINDOW, WINDOW_STEP, Call, Methods
from sluice.gateway.slices import Sliced
from sluice.wire.grpc_frames import CallFailed

log = structlog.get_logger()

_CONNECTION_WINDOW = 4 * STREAM_WINDOW
_DEFAULT_WINDOW = 65_535
_CONCURRENT_CALLS = 1000
_FRAME_BYTES = 64 * 1024
_HEADER_BYTES_READ = 4 * HEADER_BYTES  # what is read of it to refuse the call alone; beyond, the connection ends
_INBOX_BYTES = 64 * 1024 * 1024  # of a connection's calls together, or of four messages if that is more
_UNSENT_BYTES = 16 * 1024 * 1024  # answers of a connection's calls; beyond it no call's next message is begun
_IDLE_EVENTS = 10_000  # events in _IDLE_S without a message or an end of a call; more of them are a flood
_IDLE_S = 60.0
_WRITE_BUFFER = 256 * 1024  # bytes that the socket has not taken; beyond it nothing is read or written


class GrpcProtocol(Sliced, asyncio.Protocol):
    """One connection. What a turn of the loop has to send on all its calls is written at once, at the turn's end."""

    def __init__(self, methods: Methods, bytes_limit: int, open: "set[GrpcProtocol]") -> None:
        self.bytes_limit = bytes_limit  # of one message
        self.h2: H2Connection = ServerSide()
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
            h2.events.ConnectionTerminated: self._goaway,
        }

    @property
    def held(self) -> bool:
        return not self._writable

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
        if self._unread >= WINDOW_STEP:
            self.h2.increment_flow_control_window(self._unread)
            self._unread = 0
        self.collect()
        if self._written:
            self.transport.writelines(self._written)
            self._written = []

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


class ServerSide(H2Connection):
    """h2 with our settings, and without the text that it makes of every DATA frame, of all its bytes."""

    def __init__(self) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _CONCURRENT_CALLS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
            },
        )
        self.max_inbound_frame_size = _FRAME_BYTES
        self.decoder.max_header_list_size = _HEADER_BYTES_READ

    # For its log, h2 calls `repr` on every frame, whether or not there is a log; only this method can avoid that. It is
    # private, so pyproject.toml holds h2 below its next minor version. What h2 does here besides is to catch errors
    # about closed streams; those of DATA frames do not come this far.
    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        if type(frame) is not DataFrame:
            return super()._receive_frame(frame)
        frames, events = self._receive_data_frame(frame)
        self._prepare_for_sending(frames)
        return events
