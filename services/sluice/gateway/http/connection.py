"""HTTP on a connection: hot calls are answered here, from bytes to bytes; everything else is the ASGI application's.

It takes a hot call over from uvicorn's protocol between the request's head and its answer (docs/adr/0007).
"""

from contextvars import copy_context
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sluice.gateway.core.pending import Pending
from sluice.gateway.http.body import body_too_large
from sluice.gateway.http.clocks import Clock
from sluice.gateway.http.cors import Cors
from sluice.gateway.http.evaluations import is_evaluation
from sluice.gateway.http.headers import RequestIds
from sluice.gateway.http.hot import Calls, MethodNotAllowed, Reply, Target, target_of, wants_events
from sluice.gateway.http.transport import DRAIN_S, GatedTransport, Lingering, PartingTransport, is_reset
from sluice.gateway.settings import Settings
from sluice.gateway.slices import Sliced
from sluice.policy.errors import BadRequest, SluiceError
from sluice.wire.answers import error_body

_HEAD = b"content-type: %b\r\ncontent-length: %d"
_LOOK_S = 0.05
_FIELD_BYTES = 64 * 1024  # of a head, and of what else is no body: what stands behind it, or between its chunks
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class SocketProtocol(Sliced, WebSocketsSansIOProtocol):
    """One WebSocket."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(GatedTransport(transport, self))  # type: ignore[arg-type]

    @property
    def held(self) -> bool:
        return self.read_paused

    def take(self, data: bytes) -> None:
        WebSocketsSansIOProtocol.data_received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget()
        super().connection_lost(exc)


class Clocks:
    """How long the connections of a server may wait, and for what."""

    def __init__(self, settings: Settings) -> None:
        self.idle = Clock(settings.keep_alive_s, GatewayProtocol.shutdown, settings.idle_connections)
        self.arriving = Clock(settings.arrival_s, GatewayProtocol.hurry)
        self.half_closed = Clock(settings.half_closed_s, GatewayProtocol.give_up)
        self.lingering = Clock(DRAIN_S, Lingering.end)

    def forget(self, connection: "GatewayProtocol") -> None:
        """It waits for nothing any more."""
        for clock in (self.idle, self.arriving, self.half_closed):
            clock.stop(connection)


class GatewayProtocol(Sliced, HttpToolsProtocol):
    """One connection. A hot call's `Exchange` stands where uvicorn has its cycle, also among pipelined requests."""

    def __init__(self, calls: Calls, ids: RequestIds, cors: Cors | None, clocks: Clocks, **more: Any) -> None:
        super().__init__(**more)
        self.calls = calls
        self.ids = ids
        self.cors = cors
        self._clocks = clocks
        self._running: Any = None  # the `Exchange`, or uvicorn's cycle, whose turn it is or was last
        self._arriving = False  # a request has begun to come, and not yet ended
        self._field_bytes = 0  # that have come of the request since its beginning or its body's last part
        self._unread = False  # the next request waits until the client has read the last answer
        self._half_closed = False  # the client sends nothing any more
        self._passed_on = False  # the last request's body that was not a hot call's is, part by part, as it comes

    def connection_made(self, transport: Any) -> None:
        super().connection_made(PartingTransport(transport, self, self._clocks.lingering))  # type: ignore[arg-type]
        self._clocks.idle.begin(self)
        self._context = copy_context()  # no request's own, whose trace the next one does not have

    @property
    def held(self) -> bool:
        """Requests that are sent ahead wait for their turn on the connection, not in memory."""
        return self.flow.read_paused or bool(self.pipeline)

    @property
    def sending(self) -> bool:
        """Whether the client is in the middle of a request, or has sent what has not been taken."""
        return self._arriving or self.waits

    def take(self, data: bytes) -> None:
        if self.parser is None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._wants_socket():
                self._clocks.forget(self)
                self.handle_websocket_upgrade()
            elif self.parser.get_method() == b"CONNECT":
                self._refuse(BadRequest("This is a gateway, no proxy; got CONNECT. Do not name it as one."))
            else:
                self._parse_without_offer(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._arriving = True  # whatever it is
            wrong = error.__context__ or error  # what one of our callbacks raised, such as a path that is too long
            self._refuse(BadRequest(f"This port takes HTTP/1.1; what came cannot be read as a request: {wrong}."))
        else:
            if self._arriving:
                self._clocks.arriving.begin(self)
                self._count_fields(len(data))

    def _count_fields(self, size: int) -> None:
        """Header fields are kept as they come: they must end."""
        self._field_bytes += size
        if self._field_bytes <= _FIELD_BYTES:
            return
        if (running := self._running) is None or (running.response_complete and not running.more_body):
            self._refuse(FieldsTooLarge(f"A request's header fields may have {_FIELD_BYTES} bytes; more came."))
        else:
            self.transport.abort()

    def _wants_socket(self) -> bool:
        return self._should_upgrade() and self.parser.get_method() == b"GET"

    def _parse_without_offer(self, rest: bytes) -> None:
        """A client may offer another protocol, such as h2c; the parser stops there and begins anew without it."""
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in (b"upgrade", b"connection")]
        self.parser = httptools.HttpRequestParser(self)
        self.take(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving, self._field_bytes = True, 0
        self._clocks.idle.stop(self)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and not self._wants_socket():
            return
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # that version does not know it
        method = self.parser.get_method()
        target = None if self.parser.should_upgrade() else target_of(method, self.url)
        preflight = self.cors is not None and self.cors.preflight(method, self.headers)
        if preflight or target is None or wants_events(target, self.headers):
            self._passed_on = is_evaluation(self.url.partition(b"?")[0].decode("latin-1"))
            super().on_headers_complete()
            return
        previous, exchange = self.cycle, Exchange(self, target)
        self.cycle = exchange  # type: ignore[assignment]
        if previous is None or previous.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        if self.parser.should_upgrade():
            return
        self._field_bytes = 0
        if isinstance(self.cycle, Exchange):
            self.cycle.feed(body)
        else:
            if self._passed_on:  # however large it is: each part has the time of a whole request
                self._clocks.arriving.stop(self)
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._arriving = False
        self._clocks.arriving.stop(self)
        if isinstance(self.cycle, Exchange):
            self.cycle.end()
        else:
            super().on_message_complete()
        if self.cycle.response_complete:  # it was refused before it had come
            self.cycle.more_body = False
            self._clocks.idle.begin(self)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        if isinstance(cycle, Exchange):
            cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of idle connections, which is one for all."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._arriving:  # what it has waited for so far was this answer
            self._clocks.arriving.stop(self)
            self._clocks.arriving.begin(self)
        if self.pipeline:
            self._context.run(self._start_asgi_task, *self.pipeline.pop())
        elif not self._arriving:
            self._clocks.idle.begin(self)

    def answered(self, exchange: "Exchange") -> None:
        """A hot call's answer has been written: go on with the next request, once the client reads."""
        if not exchange.keep_alive:
            self.transport.close()
        if self.flow.write_paused:
            self._unread = True
        else:
            self.on_response_complete()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread = False
            self.on_response_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: what has come whole is answered if that is soon, and then the connection closes.

        It may as well have left, which shows only when something is written to it (docs/adr/0008).
        """
        if self._half_closed:  # some loops say it again when reading is resumed
            return True
        self._arriving = False
        self._clocks.forget(self)
        if self.pipeline and self.cycle.more_body:  # the rest of it will not come
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._running
        last = self.cycle
        if last is None or last.more_body or (last.response_complete and not self.pipeline):
            return False
        last.keep_alive = False
        self._half_closed = True
        self._clocks.half_closed.begin(self)
        self._look()
        return True

    def give_up(self) -> None:
        """The client has sent nothing for so long that it counts as gone."""
        self.abandon()
        self.transport.close()

    def _look(self) -> None:
        """Look whether the client has left, which nobody tells whose side of the connection is not read any more."""
        if self.transport.is_closing():
            return
        if is_reset(self.transport):
            self.transport.abort()
        else:
            self.loop.call_later(_LOOK_S, self._look)

    def hurry(self) -> None:
        """A request has not come in time; that is the client's fault unless requests before it are still answered."""
        running, limit_s = self._running, self._clocks.arriving.limit_s
        waits = self.pipeline or (self._passed_on and self.flow.read_paused)  # for others, and not for its client
        if waits or not (running is None or running.response_complete or running.more_body):
            self._clocks.arriving.begin(self)
        elif running is not None and running.response_complete and running.more_body:
            self.transport.abort()  # it has its answer, and was to be read to its end
        else:
            self._refuse(RequestTimeout(f"A request's head and body may take {limit_s:g} s to arrive; send it faster."))

    def _refuse(self, error: SluiceError) -> None:
        """Answer what is no whole request, and close."""
        body = orjson.dumps(error_body(error))
        lines = [STATUS_LINE[error.http_status], _HEAD % (b"application/json", len(body))]
        lines += [b"\r\nsluice-code: ", error.code.encode(), b"\r\nx-request-id: ", self.ids(self.headers or ())]
        self.transport.write(b"".join([*lines, b"\r\nconnection: close\r\n\r\n", body]))
        self.transport.close()

    def abandon(self) -> None:
        """What comes is not taken any more, and what runs is withdrawn."""
        self._unread = False
        self.parser = None  # type: ignore[assignment]
        self.forget()
        self._clocks.forget(self)
        running = self._running
        if running is not None and not running.response_complete and not running.disconnected:
            running.disconnected = True
            running.message_event.set()
            if isinstance(running, Exchange):
                running.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self.abandon()
        super().connection_lost(exc)


class RequestTimeout(BadRequest):
    """A request that did not come in time."""

    http_status = 408


class FieldsTooLarge(BadRequest):
    """A request whose header fields do not end."""

    http_status = 431


class _Nobody:
    """Who uvicorn wants to wake when more of a request has come: no task waits for it here."""

    def set(self) -> None: ...


class Exchange:
    """One hot call on a connection: its body, part by part, and its answer."""

    message_event = _Nobody()

    def __init__(self, protocol: GatewayProtocol, target: Target) -> None:
        parser = protocol.parser
        self.keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self.disconnected = False
        self.more_body = True  # as with uvicorn's: the body has not come yet
        self.response_complete = False
        self._protocol = protocol
        self._target = target
        self._limit = protocol.calls.body_limit
        self._method = parser.get_method()
        self._headers = protocol.headers
        self._waits_for_continue = protocol.expect_100_continue
        self._parts: list[bytes] = []
        self._size = 0
        self._started = False  # the requests before it on this connection have been answered
        self._pending: Pending | None = None  # the call, once it has begun

    def feed(self, part: bytes) -> None:
        """A part of the body has come; beyond the limit the rest is not kept."""
        self._size += len(part)
        if self._size <= self._limit:
            self._parts.append(part)
        else:
            self._parts.clear()
            self._go_on()

    def end(self) -> None:
        """The body has come."""
        self.more_body = False
        self._go_on()

    def start(self) -> None:
        """It is this request's turn on its connection."""
        self._started = True
        self._go_on()

    def leave(self) -> None:
        """The connection is lost before the answer."""
        self._protocol.calls.gone(self._target)
        if self._pending is not None:
            self._pending.cancel()

    def _go_on(self) -> None:
        if not self._started or self._pending is not None:
            return
        if self._method != b"POST" and not self._target.tf_serving:
            self._refuse(MethodNotAllowed(f"This path takes POST; got {self._method.decode()}."))
        elif max(self._size, self._declared()) > self._limit:
            self._refuse(body_too_large(self._limit))
        elif not self.more_body:
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._pending = self._protocol.calls.begin(self._target, self._headers, body, self._answer)
        elif self._waits_for_continue:
            self._waits_for_continue = False
            self._protocol.transport.write(_CONTINUE)

    def _refuse(self, error: SluiceError) -> None:
        self._pending = self._protocol.calls.refuse(self._target, error, self._answer)

    def _declared(self) -> int:
        """The body's size as the request's head says it; 0 if it does not."""
        declared = [value for name, value in self._headers if name == b"content-length"] if self.more_body else []
        return int(declared[0]) if declared and declared[0].isdigit() else 0

    def _answer(self, reply: Reply) -> None:
        if self.disconnected or self.response_complete:
            return
        protocol, target = self._protocol, self._target
        if self._waits_for_continue and self.more_body:  # the client may send it or not: RFC 9110, section 10.1.1
            self.keep_alive = False
        lines = [STATUS_LINE[reply.status], _HEAD % (reply.content_type, len(reply.body))]
        lines += [b"\r\nx-request-id: ", protocol.ids(self._headers), b"\r\n"]
        if target.session is not None:
            lines += [b"sluice-session: ", target.session.encode(), b"\r\n"]
        told = reply.headers if protocol.cors is None else (*reply.headers, *protocol.cors.headers(self._headers))
        for name, value in told:
            lines += [name, b": ", value, b"\r\n"]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        protocol.transport.write(b"".join([*lines, b"\r\n", b"" if self._method == b"HEAD" else reply.body]))
        self.response_complete = True
        protocol.answered(self)
