"""gRPC: `sluice.v1.Sessions`, health and reflection, in the same loop and on the same gateway as HTTP.

It knows messages, metadata and status codes; what a call means is the gateway's.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message

from sluice.gateway.core.engine import complete
from sluice.gateway.core.gateway import Gateway, IfExists, SessionView
from sluice.gateway.core.oip import Inference
from sluice.gateway.grpc.call import Call, Handler, Methods
from sluice.gateway.grpc.connection import GrpcProtocol
from sluice.gateway.grpc.failures import error_message, failure
from sluice.gateway.grpc.generation import SERVICE as GENERATION_SERVICE
from sluice.gateway.grpc.generation import GenerationDoor
from sluice.gateway.grpc.handlers import Unary, awaited
from sluice.gateway.grpc.oip import SERVICE as OIP_SERVICE
from sluice.gateway.grpc.oip import OipDoor
from sluice.gateway.grpc.recognition import SERVICE as RECOGNITION_SERVICE
from sluice.gateway.grpc.recognition import RecognitionDoor
from sluice.gateway.grpc.standard import Health, reflection_methods
from sluice.gateway.grpc.stream import Stream
from sluice.gateway.grpc.tf_serving import MODEL_SERVICE, PREDICTION_SERVICE, TfServingDoor
from sluice.gateway.http.hot import BUG
from sluice.gateway.listener import BACKLOG, listen
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.errors import BadRequest, Internal, SluiceError
from sluice.policy.session import Answers, Step
from sluice.wire.arrays import read_arrays, write_array
from sluice.wire.messages.oip.v1 import inference_pb2
from sluice.wire.messages.tfs.v1 import serving_pb2
from sluice.wire.messages.v1 import generation_pb2, recognition_pb2
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.rest_paths import read_version

log = structlog.get_logger()

SERVICE = "sluice.v1.Sessions"
# What health and reflection tell about: a service's name on the wire, and the file that defines it.
_SERVICES = {
    SERVICE: messages.DESCRIPTOR,
    GENERATION_SERVICE: generation_pb2.DESCRIPTOR,
    RECOGNITION_SERVICE: recognition_pb2.DESCRIPTOR,
    PREDICTION_SERVICE: serving_pb2.DESCRIPTOR,
    MODEL_SERVICE: serving_pb2.DESCRIPTOR,
    OIP_SERVICE: inference_pb2.DESCRIPTOR,
}
_LIST_LIMIT = 1000
# Calls are counted by the names that they have over HTTP.
_COUNTED = {name: f"{name}_session" for name in ("open", "get", "fork", "renew", "close")} | {"list": "list_sessions"}
_IF_EXISTS: Mapping[int, IfExists] = {
    messages.IF_EXISTS_ERROR: "error",
    messages.IF_EXISTS_RETURN: "return",
    messages.IF_EXISTS_RESTART: "restart",
}
_LAST_WORDS_S = 0.5  # for clients to read how their calls ended


class Sessions:
    """The service's methods: a message in, a message out, or a `SluiceError`."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    async def open(self, request: messages.OpenRequest, _: float) -> messages.OpenResponse:
        view, created = await self._gateway.open_session(
            request.model,
            version=read_version(request.version),
            label=request.label or None,
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
        for name in dict.fromkeys(wanted or answers.outputs):
            write_array(reply.outputs[name], answers.outputs[name][0, ...])
        return reply


class Door:
    """What every call of the service has in common: deadline, errors as statuses and metadata, counts, logs."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self.sessions = Sessions(gateway, metrics)

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        found = messages.DESCRIPTOR.services_by_name["Sessions"].methods
        return {f"/{SERVICE}/{method.name}".encode(): self._handler(method) for method in found}

    def _handler(self, method: MethodDescriptor) -> Callable[[Call], Handler]:
        if method.name == "Stream":
            return partial(Stream, self)
        kind = getattr(messages, method.input_type.name)
        call = _snake(method.name)
        act = partial(self._unary, _COUNTED.get(call, call), kind, getattr(self.sessions, call))
        return partial(Unary, awaited(act))

    async def _unary(
        self, name: str, kind: type[Message], act: Callable[[Any, float], Awaitable[Message]], data: bytes, call: Call
    ) -> bytes:
        request = kind()
        try:
            _parse(request, data)
            reply = await act(request, self._deadline(call))
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call=name)
            refused = Internal(BUG)
        else:
            self._count(name, request, "ok")
            return reply.SerializeToString()
        self._count(name, request, refused.code)
        raise failure(refused)

    def begin(self, data: bytes, done: Callable[[Message], None]) -> Callable[[], None]:
        """Begin one request of a stream; what it returns cancels it. Every other error becomes an answer, too.

        Raises:
            CallFailed: the bytes are no request, so there is no tag to answer it by.
        """
        gateway, request = self._gateway, messages.StepManyRequest()
        try:
            _parse(request, data)
        except BadRequest as error:
            self._count("stream", request, error.code)
            raise failure(error) from None

        def answer(reply: messages.StepManyResponse | SluiceError) -> None:
            if isinstance(reply, SluiceError):
                self._count("stream", request, reply.code)
                reply = messages.StepManyResponse(tag=request.tag, error=error_message(reply))
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

    def _deadline(self, call: Call) -> float:
        now = self._gateway.now()
        left = call.time_left()
        return self._gateway.deadline(None, now) if left is None else now + left

    def _count(self, call: str, request: Any, outcome: str) -> None:
        by_model = "model" in request.DESCRIPTOR.fields_by_name
        model_of = self._gateway.model_of
        model = model_of("predict", request.model) if by_model else model_of("step", request.session)
        self._metrics.request(call, model, outcome)


class GrpcServer:
    """The gRPC port, while it is open.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(self, gateway: Gateway, metrics: Metrics, inference: Inference, address: str) -> None:
        self._gateway = gateway
        self._listener = listen(address)
        self._health = Health(tuple(_SERVICES), lambda: gateway.catalog.ready and not gateway.draining)
        self._methods = {
            **Door(gateway, metrics).methods(),
            **GenerationDoor(gateway, metrics).methods(),
            **RecognitionDoor(gateway, metrics).methods(),
            **TfServingDoor(gateway, metrics).methods(),
            **OipDoor(gateway, metrics, inference).methods(),
            **self._health.methods(),
            **reflection_methods(_SERVICES),
        }
        self._open: set[GrpcProtocol] = set()
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        loop, limit = asyncio.get_running_loop(), self._gateway.settings.body_bytes
        self._server = await loop.create_server(
            lambda: GrpcProtocol(self._methods, limit, self._open), sock=self._listener, backlog=BACKLOG
        )
        self._watching = asyncio.create_task(self._health.watch_readiness())

    async def stop(self) -> None:
        """Streams that are open are cut; what was still to be answered has been, as the gateway drains before."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            self._server.close()
        self._listener.close()
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Clients are told to go, and are cut off if they do not soon."""
        for connection in list(self._open):
            connection.stop()
        for cut_off in (False, True):
            leaving = list(self._open)
            if cut_off:
                for connection in leaving:
                    connection.abort()
            if leaving:
                await asyncio.wait([connection.lost for connection in leaving], timeout=_LAST_WORDS_S)


def _many(answers: Answers, wanted: Sequence[str] | None, tag: int) -> messages.StepManyResponse:
    reply = messages.StepManyResponse(steps=answers.steps, tag=tag)
    for name in dict.fromkeys(wanted or answers.outputs):
        if name in answers.outputs:
            write_array(reply.outputs[name], answers.outputs[name])
    for row, error in sorted(answers.errors.items()):
        reply.errors.append(messages.StepError(index=row, error=error_message(error)))
    return reply


def _parse(request: Message, data: bytes) -> None:
    try:
        request.ParseFromString(data)
    except DecodeError:
        raise BadRequest(f"The message cannot be read as a {request.DESCRIPTOR.full_name}.") from None


def _arrays(tensors: Any) -> Any:
    try:
        arrays = read_arrays(tensors)
    except ValueError as error:
        raise BadRequest(f"A tensor cannot be read: {error}.") from None
    return arrays[""] if arrays.keys() == {""} else arrays


def _session(view: SessionView) -> messages.Session:
    found = messages.Session(
        session=view.session, model=view.model, version=view.version, step=view.step, waiting=view.waiting,
        state_bytes=view.state_bytes,
    )  # fmt: skip
    found.opened_at.FromJsonString(view.opened_at)
    found.last_used_at.FromJsonString(view.last_used_at)
    found.expires_at.FromJsonString(view.expires_at)
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
