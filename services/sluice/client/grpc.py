"""Calls over gRPC: the services of `sluice.v1`, and TensorFlow Serving's predictions."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from sluice.client import grpc_messages as messages
from sluice.client.generation import event, generate_request
from sluice.client.grpc_stream import StreamLane
from sluice.client.recognition import recognize_request, recognized
from sluice.client.sequences import padded, uneven
from sluice.client.signatures import Signatures, metadata_request, read_metadata
from sluice.client.transport import Lane
from sluice.client.values import (
    Answer,
    Array,
    Call,
    Column,
    Ended,
    GenerateCall,
    Generated,
    Kind,
    ManyCall,
    ModelSpec,
    Opened,
    Opening,
    Page,
    PredictCall,
    RecognizeCall,
    Recognized,
    Results,
    SessionView,
    Token,
)
from sluice.policy.errors import BackendError, SluiceError
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.messages.v1 import generation_pb2, recognition_pb2
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.predict_frames import PredictRequest, read_outputs, write_request

Reply = TypeVar("Reply", bound=Message)

_METHODS: dict[str, type[Message]] = {
    "Open": pb.OpenResponse,
    "Get": pb.Session,
    "List": pb.ListResponse,
    "Step": pb.StepResponse,
    "Scan": pb.StepResponse,
    "StepMany": pb.StepManyResponse,
    "Fork": pb.Session,
    "Renew": pb.Session,
    "GetState": pb.State,
    "PutState": pb.OpenResponse,
    "Close": pb.CloseResponse,
}
_PREDICTION = "/tensorflow.serving.PredictionService"
_RECOGNIZE = "/sluice.v1.Recognition/Recognize"
_GENERATE = "/sluice.v1.Generation/Generate"
_UNLIMITED = -1
_OPTIONS = [
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.max_send_message_length", _UNLIMITED),
    # A gateway that comes back is noticed within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """One gateway at `address`, such as 127.0.0.1:8081; `headers` go with every call as metadata."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._closed = False
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._methods = {name: self._method(f"/sluice.v1.Sessions/{name}", reply) for name, reply in _METHODS.items()}
        metadata, predict = f"{_PREDICTION}/GetModelMetadata", f"{_PREDICTION}/Predict"
        self._methods["GetModelMetadata"] = self._method(metadata, tfs.GetModelMetadataResponse)
        self._methods["Predict"] = self._channel.unary_unary(predict, None, None)  # bytes out, bytes in
        self._methods["Recognize"] = self._method(_RECOGNIZE, recognition_pb2.RecognizeResponse)
        self._generate = self._channel.unary_stream(
            _GENERATE,
            request_serializer=generation_pb2.GenerateRequest.SerializeToString,
            response_deserializer=generation_pb2.GenerateEvent.FromString,
        )
        self._stream = self._channel.stream_stream(
            "/sluice.v1.Sessions/Stream",
            request_serializer=pb.StepManyRequest.SerializeToString,
            response_deserializer=pb.StepManyResponse.FromString,
        )

    async def open(self, opening: Opening, timeout_s: float) -> Opened:
        reply: pb.OpenResponse = await self._ask("Open", messages.open_request(opening), timeout_s)
        return messages.opened(reply.session)

    async def view(self, session: str, timeout_s: float) -> SessionView:
        return messages.view(await self._ask("Get", pb.GetRequest(session=session), timeout_s))

    async def list(self, model: str, limit: int, after: str, timeout_s: float) -> Page:
        request = pb.ListRequest(model=model, limit=limit, after=after)
        reply: pb.ListResponse = await self._ask("List", request, timeout_s)
        return Page([messages.view(each) for each in reply.sessions], reply.next or None)

    async def run(self, kind: Kind, call: Call, timeout_s: float) -> Answer:
        method = "Step" if kind == "step" else "Scan"
        return messages.answer(await self._ask(method, messages.step_request(call), timeout_s))

    async def step_many(self, call: ManyCall, timeout_s: float) -> Sequence[Answer | SluiceError]:
        return messages.answers(await self._ask("StepMany", messages.many_request(call), timeout_s))

    async def fork(self, session: str, fork: str | None, timeout_s: float) -> Opened:
        return messages.opened(await self._ask("Fork", pb.ForkRequest(session=session, fork=fork or ""), timeout_s))

    async def renew(self, session: str, ttl_s: float | None, timeout_s: float) -> SessionView:
        return messages.view(await self._ask("Renew", pb.RenewRequest(session=session, ttl_s=ttl_s), timeout_s))

    async def get_state(self, session: str, timeout_s: float) -> bytes:
        reply: pb.State = await self._ask("GetState", pb.GetStateRequest(session=session), timeout_s)
        return reply.envelope

    async def put_state(self, session: str, envelope: bytes, timeout_s: float) -> Opened:
        request = pb.PutStateRequest(session=session, envelope=envelope)
        reply: pb.OpenResponse = await self._ask("PutState", request, timeout_s)
        return messages.opened(reply.session)

    async def close(self, session: str, timeout_s: float) -> None:
        await self._ask("Close", pb.CloseRequest(session=session), timeout_s)

    async def answer(self, method: str, path: str, timeout_s: float) -> bytes:
        raise ValueError(f"The gateway answers {path} over HTTP only: make a client of its http:// URL.")

    async def signatures(self, spec: ModelSpec, timeout_s: float) -> Signatures:
        return read_metadata(await self._ask("GetModelMetadata", metadata_request(spec), timeout_s))

    async def predict(self, call: PredictCall, timeout_s: float) -> dict[str, Array]:
        spec, cut = call.spec, None
        inputs: Mapping[str, Any] = call.inputs
        if any(isinstance(column, list) for column in inputs.values()):
            inputs, cut = padded(call.signature, inputs)
        request = PredictRequest(spec.model, call.signature.name, inputs, spec.version, spec.label, tuple(call.outputs))
        answer = await self._ask("Predict", write_request(request), timeout_s)
        try:
            outputs = read_outputs(answer)
        except ValueError as error:
            raise BackendError(f"The answer of model {spec.model!r} cannot be read: {error}.") from None
        return {name: _own(column) for name, column in (cut.joined([outputs]) if cut else outputs).items()}

    async def recognize(self, call: RecognizeCall, timeout_s: float) -> Recognized:
        return recognized(await self._ask("Recognize", recognize_request(call), timeout_s), call)

    async def generate(self, call: GenerateCall, timeout_s: float) -> Results:
        found: dict[int, list[Generated]] = {}
        async with aclosing(self._events(generate_request(call, stream=False), timeout_s)) as events:
            async for each in events:
                if isinstance(each, Ended):
                    if each.error is not None:
                        raise each.error
                    found[each.index] = each.sequences
        return [found[index] for index in sorted(found)]

    def generate_stream(self, call: GenerateCall, timeout_s: float) -> AsyncGenerator[Token | Ended]:
        return self._events(generate_request(call, stream=True), timeout_s)

    def lane(self, timeout_s: float) -> Lane:
        return StreamLane(lambda: self._begin(self._stream, None, None))

    async def aclose(self) -> None:
        self._closed = True
        await self._channel.close(None)

    def _method(self, path: str, reply: type[Message]) -> Any:
        return self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def _begin(self, method: Any, request: Message | None, timeout_s: float | None) -> Any:
        """A call that streams."""
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise self._told(error) from None

    def _told(self, error: BaseException) -> BaseException:
        """What a caller is told of a call that did not end by itself: that the client is closed, if that is why."""
        task = asyncio.current_task()
        if self._closed and not (task is not None and task.cancelling()):
            return RuntimeError("The client has been closed: make another one.")
        return error

    async def _events(self, request: generation_pb2.GenerateRequest, timeout_s: float) -> AsyncGenerator[Token | Ended]:
        call = self._begin(self._generate, request, timeout_s)
        try:
            async for message in call:
                yield event(message)
        except grpc.aio.AioRpcError as error:
            raise messages.refusal(error) from None
        except asyncio.CancelledError as error:
            raise self._told(error) from None
        finally:
            call.cancel()

    async def _ask(self, method: str, request: Message | bytes, timeout_s: float) -> Any:
        try:
            return await self._methods[method](request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise messages.refusal(error) from None
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            raise self._told(error) from None


def _own(column: Column) -> Array:
    """What a caller may write to."""
    return uneven([row.copy() for row in column]) if isinstance(column, list) else column.copy()
