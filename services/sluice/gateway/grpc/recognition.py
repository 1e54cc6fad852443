"""gRPC's `sluice.v1.Recognition`: rows in, a class or *unknown* for each out.

It does not know connections, or how rows are recognized.
"""

from sluice.gateway.core.decisions import Verdicts
from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.core.recognition import Options
from sluice.gateway.grpc.call import Methods
from sluice.gateway.grpc.door import Door, Method, arrays_of, message_of, named, spec_of
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.recognition import Recognized
from sluice.policy.tensors import read_tensor
from sluice.wire.messages.v1 import recognition_pb2 as messages
from sluice.wire.recognition import TOP_K
from sluice.wire.rest import check_names

SERVICE = "sluice.v1.Recognition"


class Recognition:
    """The service's method."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._gateway = door.gateway

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        recognize = Method(message_of(messages.RecognizeRequest), "recognize", self._recognize)
        return {f"/{SERVICE}/Recognize".encode(): self._door.unary(recognize)}

    def _recognize(self, request: messages.RecognizeRequest, terms: Terms, pending: Pending) -> None:
        spec, arrays, recognitions = spec_of(request), arrays_of(request.inputs), self._gateway.recognitions
        options = Options(
            request.method or None,
            request.level if request.HasField("level") else None,
            request.top_k if request.HasField("top_k") else TOP_K,
            request.sets,
        )
        pending.make = _answer

        def begin(served: ServedVersion, pending: Pending) -> None:
            rule = recognitions.rule(served, options)
            tensors = rule.signature.inputs
            given = named(arrays, tensors)
            check_names(given, tensors)
            rows = {name: read_tensor(array, tensors[name], finite=False) for name, array in given.items()}
            recognitions.submit(served, rule, rows, terms, pending)

        self._gateway.resolver.resolve(spec, terms.deadline, begin, pending)


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
