"""TensorFlow Serving's calls on its official messages: a request in, an answer out, or a `ServingError`.

It does not know gRPC or HTTP; both doors and the warm-up of a version use it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from sluice.model_server.config import configured
from sluice.model_server.errors import InvalidArgument, ServingError
from sluice.model_server.models import Models
from sluice.model_server.monitoring import Monitoring
from sluice.model_server.runtime import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from sluice.model_server.servable import Servable
from sluice.model_server.versions import Available, Version
from sluice.wire.examples import serialized_examples
from sluice.wire.model_json import SIGNATURES
from sluice.wire.rest import DEFAULT_SIGNATURE
from sluice.wire.tensors import read_tensor, write_tensor

Array = NDArray[Any]
Find = Callable[[Any], Available]

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_EXAMPLES, _CLASSES, _SCORES, _REGRESSED = "inputs", "classes", "scores", "outputs"
_CLASSIFY, _REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def predict(request: Any, find: Find) -> Any:
    """`PredictRequest` → `PredictResponse`."""
    version = find(request.model_spec)
    inputs = {name: _read(name, tensor) for name, tensor in request.inputs.items()}
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    outputs = version.servable.predict(signature, inputs, request.output_filter)
    reply = predict_pb2.PredictResponse()
    _specify(reply.model_spec, request.model_spec.name, version, signature)
    for name, array in outputs.items():
        write_tensor(reply.outputs[name], array)
    return reply


def classify(request: Any, find: Find) -> Any:
    """`ClassificationRequest` → `ClassificationResponse`."""
    return _examined(classification_pb2.ClassificationResponse(), request, find, _classified)


def regress(request: Any, find: Find) -> Any:
    """`RegressionRequest` → `RegressionResponse`."""
    return _examined(regression_pb2.RegressionResponse(), request, find, _regressed)


def multi_inference(request: Any, find: Find) -> Any:
    """`MultiInferenceRequest` → `MultiInferenceResponse`: several signatures of one model on the same examples."""
    tasks = request.tasks
    name = tasks[0].model_spec.name if tasks else ""
    if not name:
        raise InvalidArgument("expected tasks, each with a model_spec that names a model; got none")
    signatures = [task.model_spec.signature_name or DEFAULT_SIGNATURE for task in tasks]
    if len(set(signatures)) < len(signatures):
        raise InvalidArgument(f"each task has a signature of its own; got {', '.join(signatures)}")
    if any(task.model_spec.name != name for task in tasks):
        raise InvalidArgument(f"all tasks are for the same model; got {[task.model_spec.name for task in tasks]}")
    reply = inference_pb2.MultiInferenceResponse()
    examples = _examples(request.input)
    for task, signature in zip(tasks, signatures, strict=True):
        version = find(task.model_spec)
        result = reply.results.add()
        _specify(result.model_spec, name, version, signature)
        match task.method_name:
            case "tensorflow/serving/classify":
                result.classification_result.CopyFrom(_classified(version.servable, signature, examples))
            case "tensorflow/serving/regress":
                result.regression_result.CopyFrom(_regressed(version.servable, signature, examples))
            case other:
                raise ServingError("UNIMPLEMENTED", f"a task's method_name is {_CLASSIFY} or {_REGRESS}; got {other!r}")
    return reply


def metadata(request: Any, find: Find) -> Any:
    """`GetModelMetadataRequest` → `GetModelMetadataResponse`."""
    if {*request.metadata_field} != {SIGNATURES}:
        raise InvalidArgument(f"metadata_field is [{SIGNATURES!r}]; {[*request.metadata_field]} came")
    version = find(request.model_spec)
    reply = get_model_metadata_pb2.GetModelMetadataResponse()
    _specify(reply.model_spec, request.model_spec.name, version)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.servable.definitions.items():
        signatures.signature_def[name].CopyFrom(definition)
    reply.metadata[SIGNATURES].Pack(signatures)
    return reply


class Calls:
    """The calls of a server's models, counted."""

    def __init__(self, models: Models, monitoring: Monitoring) -> None:
        self._models = models
        self.monitoring = monitoring

    def find(self, spec: Any) -> Available:
        """The version that a `ModelSpec` names.

        Raises:
            NotFound, InvalidArgument: there is none.
        """
        if not spec.name:
            raise InvalidArgument("model_spec names no model")
        chosen = spec.WhichOneof("version_choice")
        number = spec.version.value if chosen == "version" else None
        return self._models.find(spec.name, number, spec.version_label if chosen == "version_label" else None)

    def status(self, request: Any) -> Any:
        """`GetModelStatusRequest` → `GetModelStatusResponse`."""
        if not request.HasField("model_spec"):
            raise InvalidArgument("expected a model_spec that names a model; got none")
        spec = request.model_spec  # a label is not looked at, as in TensorFlow Serving
        versions = self._models.versions(spec.name, spec.version.value if spec.HasField("version") else None)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=map(_status, versions))

    def reload(self, request: Any) -> Any:
        """`ReloadConfigRequest` → `ReloadConfigResponse`; back when the new configuration is served."""
        self._models.configure(configured(request.config))
        return model_management_pb2.ReloadConfigResponse()

    def methods(self) -> Mapping[str, Mapping[str, Callable[[bytes], Any]]]:
        """Service → method → what answers its bytes."""
        return {
            PREDICTION_SERVICE: {name: partial(self._inferred, name, *of) for name, of in INFERENCE.items()},
            MODEL_SERVICE: {
                "GetModelStatus": lambda message: self.status(
                    parsed(get_model_status_pb2.GetModelStatusRequest, message)
                ),
                "HandleReloadConfigRequest": lambda message: self.reload(
                    parsed(model_management_pb2.ReloadConfigRequest, message)
                ),
            },
        }

    def _inferred(self, name: str, kind: Any, call: Callable[[Any, Find], Any], message: bytes) -> Any:
        request = parsed(kind, message)
        with self.monitoring.request(_model(request), name, "GRPC"):
            return call(request, self.find)


# Method of `PredictionService` → its message, and what answers it.
INFERENCE: Mapping[str, tuple[Any, Callable[[Any, Find], Any]]] = {
    "Predict": (predict_pb2.PredictRequest, predict),
    "Classify": (classification_pb2.ClassificationRequest, classify),
    "Regress": (regression_pb2.RegressionRequest, regress),
    "MultiInference": (inference_pb2.MultiInferenceRequest, multi_inference),
    "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, metadata),
}


def _model(request: Any) -> str:
    spec = request.tasks[0].model_spec if getattr(request, "tasks", None) else getattr(request, "model_spec", None)
    return spec.name if spec else ""


def parsed(kind: Any, message: bytes) -> Any:
    """Raises: ServingError: INTERNAL: the bytes are no message of that kind."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise ServingError("INTERNAL", f"the message cannot be read as a {kind.DESCRIPTOR.full_name}") from None


def _examined(reply: Any, request: Any, find: Find, run: Callable[[Servable, str, list[bytes]], Any]) -> Any:
    spec = request.model_spec
    version, signature = find(spec), spec.signature_name or DEFAULT_SIGNATURE
    reply.result.CopyFrom(run(version.servable, signature, _examples(request.input)))
    _specify(reply.model_spec, spec.name, version, signature)
    return reply


def _examples(given: Any) -> list[bytes]:
    examples = serialized_examples(given)
    if not examples:
        raise InvalidArgument("expected one example or more; got none")
    return examples


def _classified(servable: Servable, signature: str, examples: list[bytes]) -> Any:
    outputs = _run(servable, signature, examples, (_CLASSES, _SCORES))
    rows = len(examples)
    for name, array in outputs.items():
        if array.ndim != 2 or len(array) != rows:
            raise InvalidArgument(f"output {name!r} of a classification is [{rows}, classes]; it is {[*array.shape]}")
    if len({array.shape for array in outputs.values()}) > 1:
        raise InvalidArgument(f"classes and scores of {signature!r} differ in number")
    result, none = classification_pb2.ClassificationResult(), [None] * rows
    for labels, scores in zip(outputs.get(_CLASSES, none), outputs.get(_SCORES, none), strict=True):
        classes = result.classifications.add().classes
        for i in range(len(scores if labels is None else labels)):
            classes.add(label=_label(labels, i), score=0.0 if scores is None else scores[i])
    return result


def _label(labels: Array | None, i: int) -> str:
    return "" if labels is None else labels[i].decode(errors="replace")


def _regressed(servable: Servable, signature: str, examples: list[bytes]) -> Any:
    array = _run(servable, signature, examples, (_REGRESSED,))[_REGRESSED]
    rows = len(examples)
    if array.shape not in ((rows,), (rows, 1)):
        raise InvalidArgument(f"the output of a regression is [{rows}] or [{rows}, 1]; it is {[*array.shape]}")
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _run(servable: Servable, signature: str, examples: list[bytes], known: Sequence[str]) -> dict[str, Array]:
    """Those of the outputs `known` that a signature over serialized examples has.

    Raises:
        InvalidArgument: it is no such signature. ServingError: TensorFlow's own error.
    """
    definition = servable.definitions.get(signature)
    if definition is None:
        raise InvalidArgument(f"there is no signature {signature!r}; {servable.listed()}")
    wanted = [name for name in known if name in definition.outputs]
    if [*definition.inputs] != [_EXAMPLES] or not wanted or {*definition.outputs} - {*known}:
        raise InvalidArgument(
            f"signature {signature!r} has inputs {sorted(definition.inputs)} and outputs {sorted(definition.outputs)}; "
            f"expected inputs [{_EXAMPLES!r}] and no outputs but {' or '.join(map(repr, known))}"
        )
    serialized = np.empty(len(examples), object)
    serialized[:] = examples
    outputs = servable.predict(signature, {_EXAMPLES: serialized}, wanted)
    for name, array in outputs.items():
        if array.dtype.hasobject != (name == _CLASSES) or array.dtype.kind not in "Of":
            raise InvalidArgument(f"output {name!r} of signature {signature!r} is of the dtype {array.dtype}")
    return outputs


def _status(version: Version) -> Any:
    message = get_model_status_pb2.ModelVersionStatus(version=version.number, state=version.state)
    message.status.error_code, message.status.error_message = 0, ""
    if version.error:
        message.status.error_code = grpc.StatusCode[version.error.status].value[0]
        message.status.error_message = version.error.message
    return message


def _specify(spec: Any, name: str, version: Version, signature: str = "") -> None:
    spec.name = name
    spec.version.value = version.number
    spec.signature_name = signature


def _read(name: str, tensor: Any) -> Array:
    try:
        return read_tensor(tensor)
    except ValueError as error:
        raise InvalidArgument(f"input {name!r} cannot be read: {error}") from None
