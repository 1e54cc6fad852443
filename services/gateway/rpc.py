"""gRPC: `sluice.v1.Sessions`, health and reflection, in the same loop and on the same gateway as HTTP.

It knows messages, metadata and status codes; what a call means is the gateway's.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import orjson
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.gateway.calls import BUG
from services.gateway.engine import complete
from services.gateway.gateway import Gateway, IfExists, SessionView
from services.gateway.metrics import Metrics
from services.policy.errors import BadRequest, Internal, SluiceError
from services.policy.session import Answers, Step
from services.wire.arrays import read_arrays, write_array
from services.wire.sluice.v1 import sessions_pb2 as messages

log = structlog.get_logger()

SERVICE = "sluice.v1.Sessions"
_LIST_LIMIT = 1000
_IF_EXISTS: Mapping[int, IfExists] = {
    messages.IF_EXISTS_ERROR: "error",
    messages.IF_EXISTS_RETURN: "return",
    messages.IF_EXISTS_RESTART: "restart",
}
# Answers of one stream that may be on their way; beyond it no more requests are read from it.
_STREAM_LIMIT = 1024
_HEALTH_S = 0.1  # how often readiness is looked at


class Sessions:
    """The service's methods: a message in, a message out, or a `SluiceError`."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    async def open(self, request: messages.OpenRequest, _: float) -> messages.OpenResponse:
        view, created = await self._gateway.open_session(
            request.model,
            version=_version(request.version),
            id=request.session or None,
            state=_arrays(request.state),
            ttl_s=request.ttl_s if request.HasField("ttl_s") else None,
            if_exists=_IF_EXISTS.get(request.if_exists, "error"),
        )
        return messages.OpenResponse(session=_session(view), created=created)

    async def get(self, request: messages.GetRequest, _: float) -> messages.Session:
        return _session(self._gateway.view(self._gateway.session(request.session)))

    async def list(self, request: messages.ListRequest, _: float) -> messages.ListResponse:
        limit = request.limit or 100
        if not 0 < limit <= _LIST_LIMIT:
            raise BadRequest(f"limit is a number from 1 to {_LIST_LIMIT}; got {limit}.")
        await self._gateway.catalog.find(request.model)
        views, following = self._gateway.list_sessions(request.model, request.after, limit)
        return messages.ListResponse(sessions=map(_session, views), next=following or "")

    async def step(self, request: messages.StepRequest, deadline: float) -> messages.StepResponse:
        return await self._run(self._gateway.step, request, deadline)

    async def scan(self, request: messages.StepRequest, deadline: float) -> messages.StepResponse:
        return await self._run(self._gateway.scan, request, deadline)

    async def step_many(self, request: messages.StepManyRequest, deadline: float) -> messages.StepManyResponse:
        future: asyncio.Future[messages.StepManyResponse] = asyncio.get_running_loop().create_future()
        cancel = self.begin_many(request, deadline, partial(complete, future))
        try:
            return await future
        except asyncio.CancelledError:
            cancel()
            raise

    def begin_many(
        self, request: messages.StepManyRequest, deadline: float,
        done: Callable[[messages.StepManyResponse | SluiceError], Any],
    ) -> Callable[[], None]:  # fmt: skip
        """Begin a step of many sessions; what it returns cancels it. `done` is called from the loop.

        Raises:
            SluiceError: the whole call is refused.
        """
        wanted = list(request.outputs) or None
        columns = self._gateway.step_many(
            request.model,
            list(request.sessions),
            _arrays(request.inputs),
            list(request.steps) or None,
            wanted,
            deadline,
        )

        def answer(outcomes: Sequence[Any]) -> None:
            try:
                done(_many(columns.joined(outcomes), wanted, request.tag))
            except SluiceError as error:
                done(error)

        return self._gateway.engine.submit_all([step for _, step in columns.steps], answer)

    async def fork(self, request: messages.ForkRequest, _: float) -> messages.Session:
        return _session(self._gateway.fork(request.session, request.fork or None))

    async def renew(self, request: messages.RenewRequest, _: float) -> messages.Session:
        return _session(self._gateway.renew(request.session, request.ttl_s if request.HasField("ttl_s") else None))

    async def get_state(self, request: messages.GetStateRequest, _: float) -> messages.State:
        return messages.State(envelope=self._gateway.saved_state(request.session))

    async def put_state(self, request: messages.PutStateRequest, _: float) -> messages.OpenResponse:
        view, created = await self._gateway.restore(request.session, request.envelope)
        return messages.OpenResponse(session=_session(view), created=created)

    async def close(self, request: messages.CloseRequest, _: float) -> messages.CloseResponse:
        self._gateway.close_session(request.session)
        return messages.CloseResponse()

    async def _run(
        self, begin: Callable[..., Step], request: messages.StepRequest, deadline: float
    ) -> messages.StepResponse:
        number = request.step if request.HasField("step") else None
        if number is not None and number < 0:
            raise BadRequest(f"step is the number of time steps done so far, from 0; got {number}.")
        wanted = list(request.outputs) or None
        step = begin(request.session, _arrays(request.inputs), number, wanted, deadline)
        answers: Answers = await self._gateway.engine.run(step)
        reply = messages.StepResponse(step=answers.steps[0], replayed=answers.replayed)
        for name in wanted or answers.outputs:
            write_array(reply.outputs[name], answers.outputs[name][0])
        return reply


class Door:
    """What every gRPC call has in common: deadline, errors in the status and trailing metadata, counts, logs."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self.sessions = Sessions(gateway, metrics)

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The service, under its name on the wire."""
        methods = messages.DESCRIPTOR.services_by_name["Sessions"].methods
        found = {method.name: self._handler(method.name, method.input_type) for method in methods}
        return grpc.method_handlers_generic_handler(SERVICE, found)

    def _handler(self, name: str, request: Any) -> Any:
        read = getattr(messages, request.name).FromString
        if name == "Stream":
            return grpc.stream_stream_rpc_method_handler(self.stream, read, _bytes)
        method = partial(self._unary, _snake(name), getattr(self.sessions, _snake(name)))
        return grpc.unary_unary_rpc_method_handler(method, read, _bytes)

    async def _unary(
        self, call: str, method: Callable[[Any, float], Awaitable[Message]], request: Any, context: Any
    ) -> Message:
        try:
            reply = await method(request, self._deadline(context))
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call=call)
            refused = Internal(BUG)
        else:
            self._count(call, request, "ok")
            return reply
        self._count(call, request, refused.code)
        status = grpc.StatusCode[refused.grpc_status]
        await context.abort(status, refused.message, trailing_metadata=_metadata(refused))
        raise AssertionError("abort raises")

    async def stream(self, _: Any, context: Any) -> None:
        await Stream(self, context).serve()

    def begin(
        self, request: messages.StepManyRequest, done: Callable[[messages.StepManyResponse], None]
    ) -> Callable[[], None]:
        """Begin one request of a stream; what it returns cancels it. Every error becomes an answer, too."""
        gateway = self._gateway

        def answer(reply: messages.StepManyResponse | SluiceError) -> None:
            if isinstance(reply, SluiceError):
                self._count("stream", request, reply.code)
                reply = messages.StepManyResponse(tag=request.tag, error=_error(reply))
            else:
                self._count("stream", request, "ok")
            done(reply)

        try:
            return self.sessions.begin_many(request, gateway.deadline(request.timeout_ms, gateway.now()), answer)
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call="stream")
            refused = Internal(BUG)
        return asyncio.get_running_loop().call_soon(answer, refused).cancel

    def _deadline(self, context: Any) -> float:
        left = context.time_remaining()
        now = self._gateway.now()
        return self._gateway.deadline(None, now) if left is None else now + left

    def _count(self, call: str, request: Any, outcome: str) -> None:
        named = getattr(request, "model", None)
        model = self._gateway.model_of("predict" if named else "step", named or request.session)
        self._metrics.request(call, model, outcome)


class Stream:
    """One bidirectional stream: requests are begun as they come, answers are written as they are ready.

    Requests are read as long as not too many await their answer or its writing; who sends faster has to wait.
    """

    def __init__(self, door: Door, context: Any) -> None:
        self._door = door
        self._context = context
        self._running: dict[int, Callable[[], None]] = {}  # what cancels each request
        self._answers: deque[messages.StepManyResponse] = deque()
        self._ready = asyncio.Event()
        self._room = asyncio.Semaphore(_STREAM_LIMIT)
        self._sent_all = False  # by the client

    async def serve(self) -> None:
        """Until the client has sent all and has got all, or leaves."""
        writing = asyncio.create_task(self._write())
        try:
            await self._read()
            self._sent_all = True
            self._ready.set()
            await writing
        finally:
            writing.cancel()
            for cancel in self._running.values():
                cancel()

    async def _read(self) -> None:
        number = 0
        while (request := await self._context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            await self._room.acquire()
            number += 1
            self._running[number] = self._door.begin(request, partial(self._answer, number))

    async def _write(self) -> None:
        while not self._sent_all or self._running or self._answers:
            await self._ready.wait()
            self._ready.clear()
            while self._answers:
                await self._context.write(self._answers.popleft())
                self._room.release()

    def _answer(self, number: int, answer: messages.StepManyResponse) -> None:
        del self._running[number]
        self._answers.append(answer)
        self._ready.set()


class GrpcServer:
    """The gRPC port, while it is open."""

    def __init__(self, gateway: Gateway, metrics: Metrics, address: str) -> None:
        limit = gateway.settings.body_bytes
        options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second gateway on this port is refused, not mixed in
        ]
        self._gateway = gateway
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((Door(gateway, metrics).handlers(),))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._port = self._server.add_insecure_port(address)
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self._port

    async def start(self) -> None:
        await self._server.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Streams that are open are cut; what was still to be answered has been, as the gateway drains before."""
        if self._watching is not None:
            self._watching.cancel()
        await self._server.stop(None)

    async def _watch(self) -> None:
        """Tell those who ask for health what `/readyz` says."""
        before = None
        while True:
            ready = self._gateway.catalog.ready and not self._gateway.draining
            if ready is not before:
                status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
                for service in ("", SERVICE):
                    await self._health.set(service, status)
            before = ready
            await asyncio.sleep(_HEALTH_S)


def _many(answers: Answers, wanted: Sequence[str] | None, tag: int) -> messages.StepManyResponse:
    reply = messages.StepManyResponse(steps=answers.steps, tag=tag)
    for name in wanted or answers.outputs:
        if name in answers.outputs:
            write_array(reply.outputs[name], answers.outputs[name])
    for row, error in sorted(answers.errors.items()):
        reply.errors.append(messages.StepError(index=row, error=_error(error)))
    return reply


def _error(error: SluiceError) -> messages.Error:
    details = orjson.dumps(dict(error.details)).decode() if error.details else ""
    return messages.Error(code=error.code, message=error.message, retry_after_s=error.retry_after_s, details=details)


def _metadata(error: SluiceError) -> tuple[tuple[str, str], ...]:
    found = [("sluice-code", error.code)]
    if error.retry_after_s is not None:
        found.append(("retry-after", str(error.retry_after_s)))
    if error.details:
        found.append(("sluice-details", orjson.dumps(dict(error.details)).decode()))
    return tuple(found)


def _arrays(tensors: Any) -> Any:
    try:
        arrays = read_arrays(tensors)
    except ValueError as error:
        raise BadRequest(f"A tensor cannot be read: {error}.") from None
    return arrays[""] if arrays.keys() == {""} else arrays


def _version(text: str) -> int | None:
    if text and not (text.isdecimal() and len(text) <= 18):
        raise BadRequest(f"version is a whole number; got {text!r:.80}.")
    return int(text) if text else None


def _session(view: SessionView) -> messages.Session:
    found = messages.Session(
        session=view.session, model=view.model, version=view.version, step=view.step, waiting=view.waiting,
        state_bytes=view.state_bytes,
    )  # fmt: skip
    found.opened_at.FromJsonString(view.opened_at)
    found.last_used_at.FromJsonString(view.last_used_at)
    found.expires_at.FromJsonString(view.expires_at)
    return found


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _snake(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
