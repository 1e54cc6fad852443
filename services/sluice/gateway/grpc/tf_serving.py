"""TensorFlow Serving's gRPC services: Predict is batched where it can be, everything else passed on byte for byte.

It knows messages and status codes; how rows are batched is the gateway's, and what a call means the model server's.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.predict import Outcome, Predict
from sluice.gateway.grpc.call import Call, Methods
from sluice.gateway.grpc.failures import tf_serving_failure
from sluice.gateway.grpc.handlers import Answered, Unary, awaited
from sluice.gateway.http.hot import BUG
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.contract import Tensor
from sluice.policy.errors import Internal, PermissionDenied, SluiceError, VersionNotFound
from sluice.wire.predict_frames import PredictRequest, read_request, write_response
from sluice.wire.rest import DEFAULT_SIGNATURE
from sluice.wire.tensors import Array, dtype_name

log = structlog.get_logger()

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


class NotBatched(Exception):
    """A request that the model server has to look at as it is."""


class TfServingDoor:
    """`PredictionService` and `ModelService`."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def methods(self) -> Methods:
        """The services' methods, by their paths on the wire."""
        forwarded = {
            f"/{method}".encode(): partial(Unary, awaited(partial(self._forward, method, name)))
            for method, name in _FORWARDED.items()
        }
        predict, reload = partial(Unary, self._predict), partial(Unary, awaited(self._reload))
        return {f"/{_PREDICT}".encode(): predict, f"/{_RELOAD}".encode(): reload, **forwarded}

    def _predict(self, message: bytes, call: Call, done: Answered) -> Callable[[], object]:
        try:
            request = read_request(message)
        except ValueError:
            return self._as_it_is(message, call, done)
        about = request.model, request.version, request.label
        if self._gateway.catalog.at_hand(*about) is not None:
            return self._batched(request, message, call, done)
        cancelling = _Cancelling()

        async def look_up() -> None:
            try:
                await self._gateway.predictions.find(*about, self._deadline(call))
            except SluiceError:  # the model server says it in its own words
                cancelling.take(self._as_it_is(message, call, done))
            else:
                cancelling.take(self._batched(request, message, call, done))

        task = asyncio.get_running_loop().create_task(look_up())
        cancelling.take(task.cancel)
        return cancelling

    def _as_it_is(self, message: bytes, call: Call, done: Answered) -> Callable[[], object]:
        return awaited(partial(self._forward, _PREDICT, "predict"))(message, call, done)

    def _batched(self, request: PredictRequest, message: bytes, call: Call, done: Answered) -> Callable[[], object]:
        forward = partial(self._as_it_is, message, call, done)
        try:
            asked = _read(request, self._gateway)
            cancelling = _Cancelling()
            answer = partial(self._answer, asked, done, lambda: cancelling.take(forward()))
            cancelling.take(self._gateway.predictions.begin(asked, self._deadline(call), answer))
        except NotBatched:
            return forward()
        except SluiceError as error:
            self._metrics.request("predict", "", error.code)
            done(tf_serving_failure(error))
            return lambda: None
        return cancelling

    def _answer(self, asked: Predict, done: Answered, forward: Callable[[], object], outcome: Outcome) -> None:
        if isinstance(outcome, VersionNotFound):  # it went while the rows waited
            forward()
            return
        model = self._gateway.model_of("predict", asked.model)
        if isinstance(outcome, SluiceError):
            self._metrics.request("predict", model, outcome.code)
            done(tf_serving_failure(outcome))
            return
        answer = write_response(asked.model, outcome.version, asked.signature, outcome.arrays)
        self._metrics.request("predict", model, "ok")
        done(answer)

    async def _forward(self, method: str, name: str, message: bytes, call: Call) -> bytes:
        left = self._deadline(call) - self._gateway.now()
        try:
            answer = await self._gateway.catalog.forward(method.removeprefix("tensorflow.serving."), message, left)
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call=name)
            refused = Internal(BUG)
        else:
            self._metrics.request(name, "", "ok")
            return answer
        self._metrics.request(name, "", refused.code)
        raise tf_serving_failure(refused)

    async def _reload(self, message: bytes, call: Call) -> bytes:
        if self._gateway.settings.allow_reload:
            return await self._forward(_RELOAD, "reload", message, call)
        refused = PermissionDenied("This gateway does not pass new configurations on; see the setting allow_reload.")
        self._metrics.request("reload", "", refused.code)
        raise tf_serving_failure(refused)

    def _deadline(self, call: Call) -> float:
        now, left = self._gateway.now(), call.time_left()
        return self._gateway.deadline(None, now) if left is None else now + left


class _Cancelling:
    """Cancels what was begun last."""

    def __init__(self) -> None:
        self._cancel: Callable[[], object] = lambda: None

    def take(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def __call__(self) -> object:
        return self._cancel()


def _read(request: PredictRequest, gateway: Gateway) -> Predict:
    """A request as it can go through the batcher.

    Raises:
        NotBatched: it cannot, or it is wrong, which the model server can say best.
    """
    name, version, label = request.model, request.version, request.label
    served = gateway.catalog.at_hand(name, version, label)
    signature = served and served.predicts(request.signature or DEFAULT_SIGNATURE)
    if not signature or signature.batch_axis == "none" or not _are_outputs(request.outputs, signature.outputs):
        raise NotBatched
    given = {each: array for each, array in request.inputs.items() if each not in signature.measures}
    if not _are_inputs(given, signature.inputs):
        raise NotBatched
    arrays = {**{each: given[each] for each in signature.inputs}, **request.inputs}
    asked = request.signature or DEFAULT_SIGNATURE
    return Predict(name, asked, lambda *_: arrays, version, label, tuple(sorted(request.outputs)))


def _are_inputs(arrays: Mapping[str, Array], inputs: Mapping[str, Tensor]) -> bool:
    return arrays.keys() == inputs.keys() and all(
        dtype_name(arrays[name].dtype) == tensor.dtype for name, tensor in inputs.items()
    )


def _are_outputs(names: Sequence[str], outputs: Mapping[str, Tensor]) -> bool:
    return len(set(names)) == len(names) and all(name in outputs for name in names)
