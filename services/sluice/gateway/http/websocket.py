"""One session's steps over a WebSocket: each message is a step, and the replies come in the order of the messages."""

import asyncio
from collections import deque
from functools import partial

import orjson
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.pending import Pending
from sluice.gateway.http.answers import step_body
from sluice.gateway.http.fields import read_step
from sluice.gateway.http.headers import CallOptions, read_headers
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.errors import BadRequest, NotFound, SluiceError
from sluice.wire.answers import error_body, error_headers


async def serve_socket(socket: WebSocket, session: str) -> None:
    """Serve a socket until it closes, which leaves the session open and withdraws steps that are not answered."""
    gateway: Gateway = socket.app.state.gateway
    request_id = socket.app.state.ids(socket.headers.raw).decode("latin-1")
    try:
        said = read_headers(socket.headers.raw, session)
        gateway.sessions.get(session)
    except SluiceError as error:
        await _refuse(socket, error, error.http_status, {"Sluice-Session": session, "X-Request-Id": request_id})
        return
    await socket.accept(headers=[(b"sluice-session", session.encode()), (b"x-request-id", request_id.encode())])
    stream = SocketStream(socket, gateway, socket.app.state.metrics, session, said)
    try:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(stream.write())
            await stream.read()
            writing.cancel()
    except* (WebSocketDisconnect, OSError):
        pass
    finally:
        stream.leave()


async def refuse_socket(socket: WebSocket) -> None:
    """Answer who asks for a WebSocket where there is none."""
    error = BadRequest(f"There is no WebSocket at {socket.url.path:.200}; there is one at /v1/sessions/ID/stream.")
    request_id = socket.app.state.ids(socket.headers.raw).decode("latin-1")
    await _refuse(socket, error, NotFound.http_status, {"X-Request-Id": request_id})


async def _refuse(socket: WebSocket, error: SluiceError, status: int, headers: dict[str, str]) -> None:
    await socket.send_denial_response(JSONResponse(error_body(error), status, {**error_headers(error), **headers}))


class _Slot:
    """A message's place in the order of replies."""

    __slots__ = ("pending", "reply")

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self.pending: Pending | None = None


class SocketStream:
    """Reads messages as long as not too many await their reply or its sending; who sends faster has to wait."""

    def __init__(self, socket: WebSocket, gateway: Gateway, metrics: Metrics, session: str, said: CallOptions) -> None:
        self._socket = socket
        self._gateway = gateway
        self._metrics = metrics
        self._session = session
        self._said = said
        self._slots: deque[_Slot] = deque()
        # Beyond what may wait in a session a message is refused, which is a reply, too.
        self._room = asyncio.Semaphore(2 * gateway.settings.session_queue_steps)
        self._ready = asyncio.Event()

    async def read(self) -> None:
        """Take messages until the client closes."""
        while True:
            await self._room.acquire()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            slot = _Slot()
            self._slots.append(slot)
            text = message.get("text")
            self._begin(slot, message["bytes"] if text is None else text.encode(errors="replace"))

    async def write(self) -> None:
        """Send replies in order, as they are ready."""
        while True:
            while self._slots and self._slots[0].reply is not None:
                reply = self._slots.popleft().reply or b""
                await self._socket.send_text(reply.decode())
                self._room.release()
            self._ready.clear()
            await self._ready.wait()

    def leave(self) -> None:
        """Withdraw what has not been answered."""
        for slot in self._slots:
            if slot.pending is not None:
                slot.pending.cancel()

    def _begin(self, slot: _Slot, body: bytes) -> None:
        slot.pending = Pending(partial(self._answer, slot))
        slot.pending.begin(self._step, body)

    def _step(self, body: bytes, pending: Pending) -> None:
        inputs, number, wanted = read_step(body)
        pending.make = lambda answers: step_body(answers, wanted)
        terms = self._gateway.terms(self._said.timeout_s, self._said.priority_s, self._said.exact)
        self._gateway.sessions.step(self._session, inputs, number, wanted, terms, pending)

    def _answer(self, slot: _Slot, outcome: bytes | SluiceError) -> None:
        if isinstance(outcome, SluiceError):
            slot.reply, code = orjson.dumps(error_body(outcome)), outcome.code
        else:
            slot.reply, code = outcome, "ok"
        self._metrics.request("stream", self._gateway.sessions.model_of(self._session), code)
        self._ready.set()
