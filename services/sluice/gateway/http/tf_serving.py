"""TensorFlow Serving's calls that are not batched: passed on to the model server, between REST's JSON and its messages.

It does not know HTTP; predict, which is batched, is elsewhere.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.resolve import ModelSpec
from sluice.policy.errors import BackendError
from sluice.wire.examples import encode_classifications, encode_regressions, parse_examples
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.model_json import SIGNATURES, encode_metadata, encode_status


async def _status(gateway: Gateway, about: ModelSpec, _: bytes, deadline: float) -> bytes:
    request = tfs.GetModelStatusRequest()
    request.model_spec.name = about.name  # a label is not looked at, as in TensorFlow Serving
    if about.version is not None:
        request.model_spec.version.value = about.version
    method, kind = "ModelService/GetModelStatus", tfs.GetModelStatusResponse
    return encode_status(await _ask(gateway, method, request, kind, deadline))


async def _metadata(gateway: Gateway, about: ModelSpec, _: bytes, deadline: float) -> bytes:
    request = tfs.GetModelMetadataRequest(metadata_field=[SIGNATURES])
    _specify(request.model_spec, about)
    method, kind = "PredictionService/GetModelMetadata", tfs.GetModelMetadataResponse
    reply = await _ask(gateway, method, request, kind, deadline)
    try:
        return encode_metadata(reply)
    except ValueError as error:
        raise BackendError(f"The model server's answer for model {about.name!r} is of no use: {error}.") from None


async def _classify(gateway: Gateway, about: ModelSpec, body: bytes, deadline: float) -> bytes:
    asked = parse_examples(body, "classify")
    request = tfs.ClassificationRequest(input=asked.input)
    _specify(request.model_spec, about, asked.signature_name)
    method, kind = "PredictionService/Classify", tfs.ClassificationResponse
    return encode_classifications((await _ask(gateway, method, request, kind, deadline)).result)


async def _regress(gateway: Gateway, about: ModelSpec, body: bytes, deadline: float) -> bytes:
    asked = parse_examples(body, "regress")
    request = tfs.RegressionRequest(input=asked.input)
    _specify(request.model_spec, about, asked.signature_name)
    method, kind = "PredictionService/Regress", tfs.RegressionResponse
    return encode_regressions((await _ask(gateway, method, request, kind, deadline)).result)


# Call → the REST body of its answer, for a model, the body that came, and the deadline in the engine's seconds.
FORWARDED: Mapping[str, Callable[[Gateway, ModelSpec, bytes, float], Coroutine[Any, Any, bytes]]] = {
    "status": _status,
    "metadata": _metadata,
    "classify": _classify,
    "regress": _regress,
}


def _specify(spec: tfs.ModelSpec, about: ModelSpec, signature: str = "") -> None:
    spec.name, spec.signature_name = about.name, signature
    if about.version is not None:
        spec.version.value = about.version
    elif about.label is not None:
        spec.version_label = about.label


async def _ask(gateway: Gateway, method: str, request: Message, kind: type[Any], deadline: float) -> Any:
    answer = await gateway.resolver.forward(method, request.SerializeToString(), deadline - gateway.now())
    try:
        return kind.FromString(answer)
    except DecodeError:
        raise BackendError(f"The model server's answer to {method} cannot be read.") from None
