"""TensorFlow Serving's gRPC services: Predict is batched where it can be, everything else passed on byte for byte.

It does not know connections; how rows are batched is the core's, and what a call means the model server's.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from sluice.gateway.core.pending import Pending, Terms, awaited, in_task
from sluice.gateway.core.predict import Predict, Prediction, check_shapes
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.grpc.call import Methods
from sluice.gateway.grpc.door import Begin, Door, Method
from sluice.gateway.grpc.failures import tf_serving_failure
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Tensor
from sluice.policy.errors import NotFound, PermissionDenied, VersionNotFound
from sluice.wire.predict_frames import PredictRequest, read_request, read_shapes, write_response
from sluice.wire.rest import DEFAULT_SIGNATURE
from sluice.wire.tensors import Array, dtype_name

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
# Method → the name that its calls are counted by.
_FORWARDED = {
    f"{PREDICTION_SERVICE}/Classify": "classify",
    f"{PREDICTION_SERVICE}/Regress": "regress",
    f"{PREDICTION_SERVICE}/MultiInference": "multi_inference",
    f"{PREDICTION_SERVICE}/GetModelMetadata": "metadata",
    f"{MODEL_SERVICE}/GetModelStatus": "status",
}
_PREDICT = f"{PREDICTION_SERVICE}/Predict"
_RELOAD = f"{MODEL_SERVICE}/HandleReloadConfigRequest"


class TfServing:
    """`PredictionService` and `ModelService`. Requests and answers are bytes."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._gateway = door.gateway

    def methods(self) -> Methods:
        """The services' methods, by their paths on the wire."""
        begun: dict[str, tuple[str, Begin]] = {
            method: (call, partial(self._forward, method)) for method, call in _FORWARDED.items()
        }
        begun[_RELOAD] = "reload", self._reload
        methods = {method: Method(bytes, call, begin, tf_serving_failure) for method, (call, begin) in begun.items()}
        methods[_PREDICT] = Method(_read_predict, "predict", self._predict, tf_serving_failure)
        return {f"/{name}".encode(): self._door.unary(method) for name, method in methods.items()}

    def _predict(self, asked: "_Predict", terms: Terms, pending: Pending) -> None:
        request, message = asked
        if request is None:
            in_task(self._unread, message, terms, pending=pending)
            return
        spec = ModelSpec(request.model, request.version, request.label)
        if self._gateway.catalog.at_hand(*spec) is not None:
            self._batched(request, spec, message, terms, pending)
        else:
            in_task(self._looked_up, request, spec, message, terms, pending=pending)

    async def _looked_up(self, request: PredictRequest, spec: ModelSpec, message: bytes, terms: Terms) -> Any:
        try:
            await self._gateway.resolver.find(spec, terms.deadline)
        except NotFound:  # the model server says it in its own words
            return await self._passed_on(_PREDICT, message, terms)
        return await awaited(partial(self._batched, request, spec, message, terms))

    async def _unread(self, message: bytes, terms: Terms) -> Any:
        """Pass on tensors that only the model server can read, if their shapes can do it no harm."""
        try:
            asked = read_shapes(message)
            spec = ModelSpec(asked.model, asked.version, asked.label)
            served = await self._gateway.resolver.find(spec, terms.deadline)
        except (ValueError, NotFound):
            return await self._passed_on(_PREDICT, message, terms)
        _check(asked.signature, asked.shapes, served)
        return await self._passed_on(_PREDICT, message, terms)

    def _batched(
        self, request: PredictRequest, spec: ModelSpec, message: bytes, terms: Terms, pending: Pending
    ) -> None:
        """Have rows batched, if they can be; what cannot, or is wrong, the model server looks at as it is."""
        served = self._gateway.catalog.at_hand(*spec)
        if served is None or _asked(request, served) is None:
            self._forward_checked(request, served, message, terms, pending)
            return

        def begin(served: ServedVersion, pending: Pending) -> None:
            asked = _asked(request, served)
            if asked is None:  # of the version that has replaced the other
                self._forward_checked(request, served, message, terms, pending)
                return
            pending.make = partial(_answer, request)
            self._gateway.predictions.submit(served, asked, terms, pending)

        def settled(outcome: Any) -> None:
            if isinstance(outcome, VersionNotFound):  # it went while the rows waited
                self._forward(_PREDICT, message, terms, pending)
            else:
                pending.settle(outcome)

        inner = Pending(settled)
        pending.runs(Pending.cancel, inner)
        self._gateway.resolver.resolve(spec, terms.deadline, begin, inner)

    def _forward_checked(
        self, request: PredictRequest, served: ServedVersion | None, message: bytes, terms: Terms, pending: Pending
    ) -> None:
        """Raises: ShapeMismatch, EmptyInput."""
        if served is not None:
            _check(request.signature, {name: array.shape for name, array in request.inputs.items()}, served)
        self._forward(_PREDICT, message, terms, pending)

    def _forward(self, method: str, message: bytes, terms: Terms, pending: Pending) -> None:
        in_task(self._passed_on, method, message, terms, pending=pending)

    async def _passed_on(self, method: str, message: bytes, terms: Terms) -> bytes:
        left_s = terms.deadline - self._gateway.now()
        return await self._gateway.resolver.forward(method.removeprefix("tensorflow.serving."), message, left_s)

    def _reload(self, message: bytes, terms: Terms, pending: Pending) -> None:
        if not self._gateway.settings.allow_reload:
            raise PermissionDenied("This gateway does not pass new configurations on; see the setting allow_reload.")
        self._forward(_RELOAD, message, terms, pending)


class _Predict(NamedTuple):
    """A message as it came, and what it says; None: it cannot be read, which the model server can say best."""

    request: PredictRequest | None
    message: bytes

    @property
    def model(self) -> str:
        return self.request.model if self.request else ""


def _read_predict(message: bytes) -> _Predict:
    try:
        return _Predict(read_request(message), message)
    except ValueError:
        return _Predict(None, message)


def _answer(request: PredictRequest, outcome: Prediction) -> bytes:
    signature = request.signature or DEFAULT_SIGNATURE
    return write_response(request.model, outcome.version, signature, outcome.arrays)


def _asked(request: PredictRequest, served: ServedVersion) -> Predict | None:
    """A request as it can go through the batcher; None: it cannot."""
    signature = served.predicts(request.signature or DEFAULT_SIGNATURE)
    if not signature or signature.batch_axis == "none" or not _are_outputs(request.outputs, signature.outputs):
        return None
    given = {each: array for each, array in request.inputs.items() if each not in signature.measures}
    if not _are_inputs(given, signature.inputs):
        return None
    arrays = {**{each: given[each] for each in signature.inputs}, **request.inputs}
    return Predict(signature, arrays, tuple(sorted(request.outputs)))


def _check(name: str, shapes: Mapping[str, Sequence[int]], served: ServedVersion) -> None:
    """Raises: ShapeMismatch, EmptyInput: as `check_shapes`; of a signature that there is not the model server tells."""
    signature = served.predicts(name or DEFAULT_SIGNATURE)
    if signature is not None:
        check_shapes(served.model, signature, shapes)


def _are_inputs(arrays: Mapping[str, Array], inputs: Mapping[str, Tensor]) -> bool:
    return arrays.keys() == inputs.keys() and all(
        dtype_name(arrays[name].dtype) == tensor.dtype for name, tensor in inputs.items()
    )


def _are_outputs(names: Sequence[str], outputs: Mapping[str, Tensor]) -> bool:
    return len(set(names)) == len(names) and all(name in outputs for name in names)
