"""The Open Inference Protocol's gRPC service: its messages to requests of the core, and back.

It does not know connections, or what a request means.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import Message

from sluice.gateway.core.oip import Inference, server_metadata
from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.core.predict import Prediction
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.grpc.call import Call, Methods
from sluice.gateway.grpc.door import Door, Method, in_a_task, message_of
from sluice.gateway.grpc.stream import Stream
from sluice.policy.errors import BackendUnavailable, BadRequest, NotFound, SluiceError
from sluice.wire.messages.oip.v1 import inference_pb2 as messages
from sluice.wire.oip import InferRequest, read_infer, write_infer
from sluice.wire.rest_paths import read_version

SERVICE = "inference.GRPCInferenceService"
_read = message_of(messages.ModelInferRequest)


class Oip:
    """`GRPCInferenceService`."""

    def __init__(self, door: Door, inference: Inference) -> None:
        self._door = door
        self._inference = inference

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        acts: dict[str, tuple[type[Message], str, Callable[[Any, Terms], Coroutine[Any, Any, Message]]]] = {
            "ServerLive": (messages.ServerLiveRequest, "oip_live", self._live),
            "ServerReady": (messages.ServerReadyRequest, "oip_ready", self._ready),
            "ModelReady": (messages.ModelReadyRequest, "oip_model_ready", self._model_ready),
            "ServerMetadata": (messages.ServerMetadataRequest, "oip_server", self._server),
            "ModelMetadata": (messages.ModelMetadataRequest, "oip_model", self._model),
            "RepositoryIndex": (messages.RepositoryIndexRequest, "oip_index", self._index),
        }
        methods = {name: Method(message_of(kind), call, in_a_task(act)) for name, (kind, call, act) in acts.items()}
        methods["ModelInfer"] = Method(_read, "infer", self._infer)
        found: dict[str, Any] = {name: self._door.unary(method) for name, method in methods.items()}
        found["ModelStreamInfer"] = partial(Stream, self._begin_one)
        return {f"/{SERVICE}/{name}".encode(): method for name, method in found.items()}

    def _infer(self, request: messages.ModelInferRequest, terms: Terms, pending: Pending) -> None:
        asked = read_infer(request)
        pending.make = partial(_inferred, asked, request.model_name)
        self._inference.begin(request.model_name, read_version(request.model_version), asked, terms, pending)

    def _begin_one(self, data: bytes, call: Call, pending: Pending) -> None:
        """Begin one request of a stream; errors become answers, too."""
        request = messages.ModelInferRequest()
        try:
            request = _read(data)
        except BadRequest as error:
            self._told(request, pending, error)
            return
        answer = Pending(partial(self._told, request, pending))
        pending.runs(Pending.cancel, answer)
        answer.begin(self._infer_of, request, call)

    def _infer_of(self, request: messages.ModelInferRequest, call: Call, pending: Pending) -> None:
        self._infer(request, self._door.terms(call, self._door.gateway.timeout_s), pending)

    def _told(
        self, request: messages.ModelInferRequest, pending: Pending, outcome: messages.ModelInferResponse | SluiceError
    ) -> None:
        self._door.count("infer", request, outcome)
        if isinstance(outcome, SluiceError):
            about = messages.ModelInferResponse(id=request.id)
            pending.settle(messages.ModelStreamInferResponse(error_message=outcome.message, infer_response=about))
        else:
            pending.settle(messages.ModelStreamInferResponse(infer_response=outcome))

    async def _live(self, _: Any, __: Terms) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: Terms) -> Message:
        return messages.ServerReadyResponse(ready=self._inference.ready)

    async def _model_ready(self, request: messages.ModelReadyRequest, terms: Terms) -> Message:
        try:
            spec = ModelSpec(request.name, read_version(request.version))
            ready = await self._inference.is_ready(spec, terms.deadline)
        except (NotFound, BackendUnavailable):
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def _server(self, _: Any, __: Terms) -> Message:
        return messages.ServerMetadataResponse(**server_metadata()._asdict())

    async def _model(self, request: messages.ModelMetadataRequest, terms: Terms) -> Message:
        spec = ModelSpec(request.name, read_version(request.version))
        name, versions, platform, *tensors = await self._inference.metadata(spec, terms.deadline)
        kind = messages.ModelMetadataResponse.TensorMetadata
        inputs, outputs = ([kind(**each._asdict()) for each in some] for some in tensors)
        return messages.ModelMetadataResponse(
            name=name, versions=versions, platform=platform, inputs=inputs, outputs=outputs
        )

    async def _index(self, request: messages.RepositoryIndexRequest, _: Terms) -> Message:
        kind = messages.RepositoryIndexResponse.ModelIndex
        found = self._inference.index(ready=request.ready)
        return messages.RepositoryIndexResponse(models=[kind(**each._asdict()) for each in found])


def _inferred(asked: InferRequest, model: str, outcome: Prediction) -> messages.ModelInferResponse:
    return write_infer(asked, model, outcome.version, outcome.arrays)
