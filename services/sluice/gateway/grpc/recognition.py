"""gRPC's `sluice.v1.Recognition`: rows in, a class or *unknown* for each out.

It knows messages and status codes; how rows are recognized is not its business.
"""

from collections.abc import Callable, Mapping
from functools import partial

import structlog
from google.protobuf.message import DecodeError

from sluice.gateway.core.decisions import Verdicts
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.predict import ModelSpec
from sluice.gateway.core.recognition import Recognize
from sluice.gateway.grpc.call import Call, Methods
from sluice.gateway.grpc.failures import failure
from sluice.gateway.grpc.handlers import Answered, Unary
from sluice.gateway.http.hot import BUG
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.contract import Signature
from sluice.policy.errors import BadRequest, Internal, SluiceError
from sluice.policy.recognition import Recognized
from sluice.policy.tensors import read_tensor
from sluice.wire.arrays import Array, read_arrays
from sluice.wire.messages.v1 import recognition_pb2 as messages
from sluice.wire.recognition import TOP_K
from sluice.wire.rest import check_names
from sluice.wire.rest_paths import read_version

log = structlog.get_logger()

SERVICE = "sluice.v1.Recognition"


class RecognitionDoor:
    """`Recognition`."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        return {f"/{SERVICE}/Recognize".encode(): partial(Unary, self._recognize)}

    def _recognize(self, data: bytes, call: Call, done: Answered) -> Callable[[], object]:
        request = messages.RecognizeRequest()

        def told(outcome: Verdicts | SluiceError) -> None:
            code = outcome.code if isinstance(outcome, SluiceError) else "ok"
            self._metrics.request("recognize", self._gateway.model_of("recognize", request.model), code)
            done(failure(outcome) if isinstance(outcome, SluiceError) else _answer(outcome).SerializeToString())

        try:
            _parse(request, data)
            return self._gateway.recognitions.begin(_asked(request), self._deadline(call), told)
        except SluiceError as error:
            told(error)
        except Exception:
            log.exception("request failed", call="recognize")
            told(Internal(BUG))
        return lambda: None

    def _deadline(self, call: Call) -> float:
        now, left = self._gateway.now(), call.time_left()
        return self._gateway.deadline(None, now) if left is None else now + left


def _parse(request: messages.RecognizeRequest, data: bytes) -> None:
    try:
        request.ParseFromString(data)
    except DecodeError:
        raise BadRequest("The message cannot be read as a sluice.v1.RecognizeRequest.") from None


def _asked(request: messages.RecognizeRequest) -> Recognize:
    if request.version and request.label:
        raise BadRequest("A request is for a version or for a label; both came.")
    try:
        arrays = read_arrays(request.inputs)
    except ValueError as error:
        raise BadRequest(f"A tensor cannot be read: {error}.") from None
    return Recognize(
        ModelSpec(request.model, read_version(request.version), request.label or None),
        partial(_rows, arrays),
        request.method or None,
        request.level if request.HasField("level") else None,
        request.top_k if request.HasField("top_k") else TOP_K,
        request.sets,
    )


def _rows(arrays: Mapping[str, Array], signature: Signature, _limit: int) -> dict[str, Array]:
    """The rows of arrays `[rows, ...]`; "" names the only input."""
    only = next(iter(signature.inputs)) if len(signature.inputs) == 1 else ""
    given = arrays if only in arrays else {name or only: array for name, array in arrays.items()}
    check_names(given, signature.inputs)
    return {name: read_tensor(array, signature.inputs[name], finite=False) for name, array in given.items()}


def _answer(verdicts: Verdicts) -> messages.RecognizeResponse:
    rule = verdicts.rule
    return messages.RecognizeResponse(
        model=rule.model, version=str(rule.version), method=rule.method, level=rule.level, threshold=rule.threshold,
        results=map(_result, verdicts.results),
    )  # fmt: skip


def _result(result: Recognized) -> messages.Recognized:
    return messages.Recognized(
        label=result.label,
        known=result.known,
        closed_set_label=result.closed_set_label,
        score=result.score,
        p_value=result.p_value,
        reason=result.reason or "",
        candidates=[messages.Candidate(label=label, probability=share) for label, share in result.candidates],
        set=result.set or (),
        threshold=result.threshold,
    )
