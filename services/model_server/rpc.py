"""TensorFlow Serving's gRPC services, with its official messages."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from services.model_server.errors import InvalidArgument, ServingError
from services.model_server.models import Available, Models, Version
from services.model_server.runtime import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from services.wire.rest import DEFAULT_SIGNATURE
from services.wire.tensors import read_tensor, write_tensor

log = structlog.get_logger()

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
_SIGNATURES = "signature_def"
# Calls at one time. TensorFlow has its own threads below, so that more of them slow each other down; a status call must
# find one free while batches of several models run.
_WORKERS = 8


class Services:
    """The methods of `PredictionService` and `ModelService` that are served; the others answer UNIMPLEMENTED."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answered(context):
            version = self._find(request.model_spec)
            inputs = {name: _read(name, tensor) for name, tensor in request.inputs.items()}
            signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
            outputs = version.servable.predict(signature, inputs, request.output_filter)
            reply = predict_pb2.PredictResponse()
            _specify(reply.model_spec, request.model_spec.name, version, signature)
            for name, array in outputs.items():
                write_tensor(reply.outputs[name], array)
            return reply

    def get_model_metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answered(context):
            if {*request.metadata_field} != {_SIGNATURES}:
                raise InvalidArgument(f"metadata_field is [{_SIGNATURES!r}]; {[*request.metadata_field]} came")
            version = self._find(request.model_spec)
            reply = get_model_metadata_pb2.GetModelMetadataResponse()
            _specify(reply.model_spec, request.model_spec.name, version)
            reply.metadata[_SIGNATURES].Pack(signature_map(version))
            return reply

    def get_model_status(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answered(context):
            spec = request.model_spec  # a label is not looked at, as in TensorFlow Serving
            versions = self._models.versions(spec.name, spec.version.value if spec.HasField("version") else None)
            return get_model_status_pb2.GetModelStatusResponse(model_version_status=map(status_message, versions))

    def handlers(self) -> list["grpc.GenericRpcHandler[Any, Any]"]:
        """For `grpc.Server.add_generic_rpc_handlers`."""
        return [
            _service(
                "PredictionService",
                Predict=(self.predict, predict_pb2.PredictRequest),
                GetModelMetadata=(self.get_model_metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            ),
            _service(
                "ModelService", GetModelStatus=(self.get_model_status, get_model_status_pb2.GetModelStatusRequest)
            ),
        ]

    def _find(self, spec: Any) -> Available:
        if not spec.name:
            raise InvalidArgument("model_spec names no model")
        if spec.WhichOneof("version_choice") == "version_label":
            raise InvalidArgument(f"there is no version label {spec.version_label!r}")
        return self._models.find(spec.name, spec.version.value if spec.HasField("version") else None)


def server(models: Models, addresses: list[str]) -> grpc.Server:
    """A server that is bound to `addresses`, HOST:PORT or unix:PATH, and not started yet.

    Raises:
        OSError: an address cannot be had.
    """
    made = grpc.server(ThreadPoolExecutor(_WORKERS, "predict"), options=_OPTIONS)
    made.add_generic_rpc_handlers(Services(models).handlers())
    for address in addresses:
        try:
            made.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
    return made


def signature_map(version: Available) -> Any:
    """A version's signatures as the official `SignatureDefMap`."""
    made = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.servable.definitions.items():
        made.signature_def[name].CopyFrom(definition)
    return made


def status_message(version: Version) -> Any:
    """A version's state as the official `ModelVersionStatus`."""
    message = get_model_status_pb2.ModelVersionStatus(version=version.number, state=version.state)
    message.status.error_code, message.status.error_message = 0, ""
    if version.error:
        message.status.error_code = grpc.StatusCode[version.error.status].value[0]
        message.status.error_message = version.error.message
    return message


@contextmanager
def _answered(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn what goes wrong into a gRPC status."""
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.status], error.message)
    except Exception:
        log.exception("call failed")
        context.abort(grpc.StatusCode.INTERNAL, "something went wrong inside the model server")


def _specify(spec: Any, name: str, version: Version, signature: str = "") -> None:
    spec.name = name
    spec.version.value = version.number
    spec.signature_name = signature


def _read(name: str, tensor: Any) -> Any:
    try:
        return read_tensor(tensor)
    except ValueError as error:
        raise InvalidArgument(f"input {name!r} cannot be read: {error}") from None


def _service(
    name: str, **methods: tuple[Callable[[Any, grpc.ServicerContext], Any], Any]
) -> "grpc.GenericRpcHandler[Any, Any]":
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=request.FromString, response_serializer=lambda reply: reply.SerializeToString()
        )
        for method, (call, request) in methods.items()
    }
    return grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
