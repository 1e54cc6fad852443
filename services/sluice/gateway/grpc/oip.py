"""The Open Inference Protocol's gRPC service.

It knows its messages and status codes; what a request means is `Inference`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.oip import Inference
from sluice.gateway.core.predict import Outcome, Terms
from sluice.gateway.grpc.call import Call, Methods
from sluice.gateway.grpc.failures import failure
from sluice.gateway.grpc.handlers import Answered, Unary, awaited
from sluice.gateway.grpc.stream import Stream
from sluice.gateway.http.hot import BUG
from sluice.gateway.http.oip import model_metadata, repository_index, server_metadata
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.batch import PRIORITIES
from sluice.policy.errors import BackendUnavailable, BadRequest, Internal, NotFound, SluiceError
from sluice.wire.messages.oip.v1 import inference_pb2 as messages
from sluice.wire.oip import InferRequest, read_infer, write_infer
from sluice.wire.rest_paths import read_version

log = structlog.get_logger()

SERVICE = "inference.GRPCInferenceService"
Reply = Callable[[messages.ModelInferResponse | SluiceError], None]


class OipDoor:
    """`GRPCInferenceService`."""

    def __init__(self, gateway: Gateway, metrics: Metrics, inference: Inference) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._inference = inference

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        plain = {
            "ServerLive": (messages.ServerLiveRequest, self._live),
            "ServerReady": (messages.ServerReadyRequest, self._ready),
            "ModelReady": (messages.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (messages.ServerMetadataRequest, self._server),
            "ModelMetadata": (messages.ModelMetadataRequest, self._model),
            "RepositoryIndex": (messages.RepositoryIndexRequest, self._index),
        }
        found: dict[str, Any] = {
            name: partial(Unary, awaited(partial(self._answer, kind, act))) for name, (kind, act) in plain.items()
        }
        found |= {"ModelInfer": partial(Unary, self._infer), "ModelStreamInfer": partial(Stream, self)}
        return {f"/{SERVICE}/{name}".encode(): method for name, method in found.items()}

    def begin(self, data: bytes, done: Callable[[Message], None]) -> Callable[[], None]:
        """Begin one request of a stream; what it returns cancels it. An error is an answer, too."""

        def told(reply: messages.ModelInferResponse | SluiceError) -> None:
            if isinstance(reply, SluiceError):
                about = messages.ModelInferResponse(id=request.id if request is not None else "")
                done(messages.ModelStreamInferResponse(error_message=reply.message, infer_response=about))
            else:
                done(messages.ModelStreamInferResponse(infer_response=reply))

        request = _parsed(messages.ModelInferRequest, data)
        now = self._gateway.now()
        return self._begin(request, self._gateway.deadline(None, now), told)

    def _infer(self, data: bytes, call: Call, done: Answered) -> Callable[[], object]:
        def told(reply: messages.ModelInferResponse | SluiceError) -> None:
            done(failure(reply) if isinstance(reply, SluiceError) else reply.SerializeToString())

        now, left = self._gateway.now(), call.time_left()
        deadline = self._gateway.deadline(None, now) if left is None else now + left
        return self._begin(_parsed(messages.ModelInferRequest, data), deadline, told)

    def _begin(self, request: Any, deadline: float, told: Reply) -> Callable[[], None]:
        model = request.model_name if request is not None else ""
        try:
            if request is None:
                raise BadRequest("The message cannot be read as an inference.ModelInferRequest.")
            asked = read_infer(request)
            answer = partial(self._answered, asked, model, told)
            terms = Terms(deadline, PRIORITIES["normal"])
            return self._inference.begin(model, read_version(request.model_version), asked, terms, answer)
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call="infer")
            refused = Internal(BUG)
        self._count("infer", model, refused.code)
        return asyncio.get_running_loop().call_soon(told, refused).cancel

    def _answered(self, asked: InferRequest, model: str, told: Reply, outcome: Outcome) -> None:
        if not isinstance(outcome, SluiceError):
            try:
                reply = write_infer(asked, model, outcome.version, outcome.arrays)
            except SluiceError as error:
                outcome = error
            else:
                self._count("infer", model, "ok")
                told(reply)
                return
        self._count("infer", model, outcome.code)
        told(outcome)

    async def _answer(self, kind: Any, act: Callable[[Any], Awaitable[Message]], data: bytes, _: Call) -> bytes:
        request = _parsed(kind, data)
        try:
            if request is None:
                raise BadRequest(f"The message cannot be read as an inference.{kind.DESCRIPTOR.name}.")
            return (await act(request)).SerializeToString()
        except SluiceError as error:
            raise failure(error) from None

    async def _live(self, _: Any) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, _: Any) -> Message:
        return messages.ServerReadyResponse(ready=self._inference.ready)

    async def _model_ready(self, request: Any) -> Message:
        try:
            ready = await self._inference.is_ready(request.name, read_version(request.version))
        except (NotFound, BackendUnavailable):
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def _server(self, _: Any) -> Message:
        return messages.ServerMetadataResponse(**server_metadata().model_dump())

    async def _model(self, request: Any) -> Message:
        found = await model_metadata(self._inference, request.name, request.version)
        return messages.ModelMetadataResponse(**found.model_dump())

    async def _index(self, request: Any) -> Message:
        found = repository_index(self._inference, ready=request.ready)
        return messages.RepositoryIndexResponse(
            models=[messages.RepositoryIndexResponse.ModelIndex(**each.model_dump()) for each in found]
        )

    def _count(self, call: str, model: str, outcome: str) -> None:
        self._metrics.request(call, self._gateway.model_of(call, model), outcome)


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None
