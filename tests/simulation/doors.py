"""Clients of every transport in made-up time: bytes in, bytes out, through the protocols that production runs.

Each client sits on its own connection, whose other end is a `Wire` instead of a socket. A turn of the loop is the only
delay there is.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import WebSocket
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from sluice.gateway.core.engine import Engine
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.grpc.connection import GrpcProtocol
from sluice.gateway.grpc.door import Door
from sluice.gateway.grpc.sessions import Sessions
from sluice.gateway.http.headers import RequestIds
from sluice.gateway.http.hot import Calls
from sluice.gateway.http.websocket import serve_socket
from sluice.gateway.metrics.metrics import Metrics
from sluice.gateway.server import server_config
from sluice.gateway.settings import Settings
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Contract, Signature
from sluice.policy.session import Phase
from sluice.wire.arrays import read_array, write_array
from sluice.wire.messages.v1 import sessions_pb2 as messages

from .model import CONTRACT, MODEL, SCAN, STEP, VERSION, RecordingScheduler

ROWS = Signature("rows", "rows", STEP.inputs, STEP.outputs)
SIGNATURES = {"step": STEP, "scan": SCAN, "rows": ROWS}


class FixedCatalog:
    """Serves the one model for ever."""

    def __init__(self) -> None:
        contract = Contract(CONTRACT.summary, SIGNATURES, CONTRACT.document)
        rows = {name: {"x": each.inputs["x"].row()} for name, each in SIGNATURES.items()}
        self.served = ServedVersion(MODEL, VERSION, contract, SIGNATURES, rows)
        self.models = {MODEL: SimpleNamespace(name=MODEL)}

    def known(self, name: str) -> None:
        """It is."""

    async def find(self, name: str, version: int | None = None) -> ServedVersion:
        return self.served

    def at_hand(self, name: str, version: int | None = None, label: str | None = None) -> ServedVersion:
        return self.served

    def get(self, name: str, version: int) -> ServedVersion:
        return self.served


class World:
    """A gateway around the real engine, and the doors to it. `more` are settings."""

    def __init__(self, runner: Any, **more: Any) -> None:
        self.settings = Settings(**{"backend": "nowhere:1", "allowed_batch_sizes": (1, 2, 4), "in_flight": 1, **more})
        self.scheduler = RecordingScheduler(self.settings.batching, self.settings.sessions)
        self.metrics = Metrics()
        self.engine = Engine(self.scheduler, runner, self.metrics)
        self.gateway = Gateway(self.settings, FixedCatalog(), self.engine, self.metrics)  # type: ignore[arg-type]
        calls = Calls(self.metrics, RequestIds())
        calls.open(self.gateway)
        self.state = SimpleNamespace(
            gateway=self.gateway, metrics=self.metrics, calls=calls, ids=RequestIds(), cors=None
        )
        self._config = server_config(self, self.settings)  # type: ignore[arg-type]
        self._config.load()
        self._server = ServerState()
        self._methods = Sessions(Door(self.gateway, self.metrics)).methods()
        self.grpc_connections: set[GrpcProtocol] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Behind the hot calls: WebSockets only."""
        assert scope["type"] == "websocket", scope
        session = scope["path"].removeprefix("/v1/sessions/").removesuffix("/stream")
        await serve_socket(WebSocket({**scope, "app": self}, receive, send), session)

    def http_protocol(self) -> asyncio.Protocol:
        make: Any = self._config.http_protocol_class
        protocol: asyncio.Protocol = make(config=self._config, server_state=self._server, app_state={})
        return protocol

    def grpc_protocol(self) -> GrpcProtocol:
        return GrpcProtocol(self._methods, self.settings.body_bytes, self.grpc_connections)

    async def open_some(self, prefix: str, count: int) -> list[str]:
        opening = [self.gateway.sessions.open(ModelSpec(MODEL), inf, id=f"{prefix}-{n}") for n in range(count)]
        return [(await each)[0].session for each in opening]

    async def check_empty(self) -> None:
        """Nothing waits, runs, or is held for anybody."""
        await self.engine.drained()
        for _ in range(10):  # for what is told, and for tasks that end, a turn later
            await asyncio.sleep(0)
        scheduler = self.scheduler
        assert not scheduler.busy and not scheduler.settled
        for dispatcher in scheduler.dispatchers.values():
            assert (dispatcher.waiting_rows, dispatcher.running, dispatcher._queues) == (0, [], {})
        sessions = scheduler.sessions.of_model(MODEL)
        assert all(session.phase is Phase.IDLE and not session.steps for session in sessions)
        assert asyncio.all_tasks() == {asyncio.current_task()}


class Wire(asyncio.Transport):
    """A connection without a socket: what the server writes, `client` hears at once."""

    def __init__(self, protocol: Any, client: "Client") -> None:
        super().__init__()
        self._protocol, self._client = protocol, client
        self._waiting = bytearray()
        self._paused = self._closing = self._lost = self.half_closed = False
        protocol.connection_made(self)

    def deliver(self, data: bytes) -> None:
        """The client has sent this."""
        self._waiting += data
        self._pump()

    def end(self) -> None:
        """The client sends nothing any more: it has left, or it waits for its answers."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def lose(self) -> None:
        """The connection is gone: nothing passes any more."""
        self._closing = True
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(None)
            self._client.stop_waiting()

    def _pump(self) -> None:
        while self._waiting and not self._paused and not self._closing:
            data, self._waiting = bytes(self._waiting), bytearray()
            self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        assert not self.half_closed, "written after its own end of stream"
        if not self._closing and data:
            self._client.hear(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    abort = close

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        asyncio.get_running_loop().call_soon(self._pump)

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


Told = dict[str, Any]  # an answer as the API's JSON has it, or an error's body


class Client:
    """One client on one connection. A call is begun, and `told` when its future is done."""

    wire: Wire

    def __init__(self) -> None:
        self.awaited: list[asyncio.Future[Told]] = []

    def hear(self, data: bytes) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        """The connection breaks; what has not been answered never will be."""
        self.wire.lose()

    def stop_waiting(self) -> None:
        for future in self.awaited:
            future.cancel()

    def answer_to_come(self) -> "asyncio.Future[Told]":
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self.awaited.append(future)
        return future


def tell(future: "asyncio.Future[Told]", told: Told) -> None:
    """An answer has come, for one who may not wait any more."""
    if not future.cancelled():
        future.set_result(told)


class HttpClient(Client):
    """Requests one after another, or pipelined."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._heard = bytearray()
        self._parts: list[bytes] = []  # to be sent, one a turn
        self._asked: list[asyncio.Future[Told]] = []
        self.wire = Wire(world.http_protocol(), self)

    def call(self, path: str, body: Any, *, pieces: int = 1) -> "asyncio.Future[Told]":
        """POST; in several `pieces`, a turn apart."""
        content = json.dumps(body).encode()
        data = f"POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
        future = self.answer_to_come()
        self._asked.append(future)
        size = -(-len(data) // pieces)
        idle = not self._parts
        self._parts += [data[start : start + size] for start in range(0, len(data), size)]
        if idle:
            self._send()
        return future

    def _send(self) -> None:
        self.wire.deliver(self._parts.pop(0))
        if self._parts:
            asyncio.get_running_loop().call_soon(self._send)

    def hear(self, data: bytes) -> None:
        self._heard += data
        while (whole := self._answer()) is not None:
            tell(self._asked.pop(0), whole)

    def _answer(self) -> Told | None:
        head, found, rest = bytes(self._heard).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        length = int(fields.get("content-length", 0))
        if not found or len(rest) < length:
            return None
        self._heard = bytearray(rest[length:])
        replayed = {"replayed": True} if "sluice-replayed" in fields else {}
        return {**json.loads(rest[:length]), **replayed}


class SocketClient(Client):
    """A WebSocket for one session."""

    def __init__(self, world: World, session: str) -> None:
        super().__init__()
        self._protocol = ClientProtocol(parse_uri(f"ws://g/v1/sessions/{session}/stream"))
        self._asked: list[asyncio.Future[Told]] = []
        self._unsent: list[bytes] = []
        self.wire = Wire(world.http_protocol(), self)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def call(self, body: Any) -> "asyncio.Future[Told]":
        future = self.answer_to_come()
        self._asked.append(future)
        self._unsent.append(json.dumps(body).encode())
        self._flush()
        return future

    def close(self) -> None:
        """The closing handshake is begun."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()
        else:
            self.leave()

    def hear(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode.name == "TEXT":
                tell(self._asked.pop(0), json.loads(event.data))
        self._flush()

    def _flush(self) -> None:
        while self._unsent and self._protocol.state is State.OPEN:
            self._protocol.send_text(self._unsent.pop(0))
        for data in self._protocol.data_to_send():
            self.wire.deliver(data)


class GrpcCall:
    """One call: messages that have come, and `ended` with its status."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.fields: Mapping[str, str] = {}
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._data += data
        new = []
        while len(self._data) >= 5 and len(self._data) >= (end := 5 + int.from_bytes(self._data[1:5])):
            new.append(bytes(self._data[5:end]))
            del self._data[:end]
        self.messages += new
        return new


class GrpcClient(Client):
    """Calls of `sluice.v1.Sessions` on one connection, and one `Stream` among them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._calls: dict[int, GrpcCall] = {}
        self._stream: int | None = None
        self._tags: dict[int, asyncio.Future[Told]] = {}
        self.last: int | None = None
        self.wire = Wire(world.grpc_protocol(), self)
        self._flush()

    def unary(self, method: str, request: Any) -> GrpcCall:
        call = self._begin(method)
        self._send(request, end=True)
        return call

    def step(self, method: str, session: str, xs: Any, number: int | None = None) -> "asyncio.Future[Told]":
        """`Step` or `Scan`."""
        request = messages.StepRequest(session=session, step=number)
        write_array(request.inputs["x"], np.array(xs, np.float64))
        return self._told(self.unary(method, request), messages.StepResponse, _as_json)

    def many(self, ids: Sequence[str], xs: Sequence[int], numbers: Sequence[int] | None) -> "asyncio.Future[Told]":
        call = self.unary("StepMany", _many(ids, xs, numbers))
        return self._told(call, messages.StepManyResponse, _many_as_json)

    def streamed(self, ids: Sequence[str], xs: Sequence[int], numbers: Sequence[int] | None) -> "asyncio.Future[Told]":
        """`StepMany` on the stream."""
        if self._stream is None:
            self._begin("Stream")
            self._stream = self.last
        future = self.answer_to_come()
        request = _many(ids, xs, numbers)
        request.tag = len(self._tags) + 1
        self._tags[request.tag] = future
        self.last = self._stream
        self._send(request, end=False)
        return future

    def cancel(self) -> None:
        """Give the last call up, and keep the connection."""
        if self.last in self._calls:
            self._h2.reset_stream(self.last, ErrorCodes.CANCEL)
            self._flush()

    def hear(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            call = self._calls.get(getattr(event, "stream_id", None) or 0)
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if call is not None:
                    self._messages(call.feed(event.data), on_stream=event.stream_id == self._stream)
            elif call is not None:
                self._end(call, event)
        self._flush()

    def _messages(self, new: list[bytes], *, on_stream: bool) -> None:
        for data in new if on_stream else []:
            reply = messages.StepManyResponse.FromString(data)
            tell(self._tags[reply.tag], _many_as_json(reply))

    def _end(self, call: GrpcCall, event: Any) -> None:
        fields = dict(getattr(event, "headers", None) or {})
        if isinstance(event, TrailersReceived) or "grpc-status" in fields:
            call.fields = fields
        if isinstance(event, StreamEnded | StreamReset):
            del self._calls[event.stream_id]
            if not call.ended.done():
                call.ended.set_result(call.fields.get("grpc-status", "reset"))

    def _told(self, call: GrpcCall, kind: Any, form: Callable[[Any], Told]) -> "asyncio.Future[Told]":
        """The call's answer in JSON's form, or its error's code."""
        future = self.answer_to_come()

        def ended(status: "asyncio.Future[str]") -> None:
            if future.done():
                return
            if status.result() == "0":
                future.set_result(form(kind.FromString(call.messages[0])))
            elif "sluice-code" in call.fields:
                future.set_result({"code": call.fields["sluice-code"], "error": call.fields["grpc-message"]})
            else:
                future.cancel()

        call.ended.add_done_callback(ended)
        return future

    def _begin(self, method: str) -> GrpcCall:
        self.last = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", f"/sluice.v1.Sessions/{method}"), (":authority", "g"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        self._h2.send_headers(self.last, headers)
        call = self._calls[self.last] = GrpcCall()
        return call

    def _send(self, request: Any, *, end: bool) -> None:
        data = request.SerializeToString()
        assert self.last is not None
        self._h2.send_data(self.last, b"\0" + len(data).to_bytes(4) + data, end_stream=end)
        self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self.wire.deliver(data)


def _many(ids: Sequence[str], xs: Sequence[int], numbers: Sequence[int] | None) -> messages.StepManyRequest:
    request = messages.StepManyRequest(model=MODEL, sessions=ids, steps=numbers)
    write_array(request.inputs["x"], np.array(xs, np.float64))
    return request


def _as_json(reply: messages.StepResponse) -> Told:
    replayed = {"replayed": True} if reply.replayed else {}
    return {"outputs": {"y": read_array(reply.outputs["y"]).tolist()}, "step": reply.step, **replayed}


def _many_as_json(reply: messages.StepManyResponse) -> Told:
    if reply.HasField("error"):
        return {"code": reply.error.code, "error": reply.error.message}
    errors: list[Told | None] = [None] * len(reply.steps)
    for each in reply.errors:
        errors[each.index] = {"code": each.error.code, "error": each.error.message}
    column = read_array(reply.outputs["y"]).tolist() if "y" in reply.outputs else [None] * len(errors)
    return {
        "outputs": {"y": [None if error else y for y, error in zip(column, errors, strict=True)]},
        "steps": [None if error else step for step, error in zip(reply.steps, errors, strict=True)],
        "errors": errors,
    }
