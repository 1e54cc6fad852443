"""The messages of `sluice.v1.Sessions` from and to what clients say and are told; its errors."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import grpc.aio
import numpy as np
import orjson

from sluice.client.errors import NO_HOST, NOBODY, NoAnswer, error_of
from sluice.client.tensors import read_tensors, write_tensors
from sluice.client.values import Answer, Call, IfExists, ManyCall, Opened, Opening, SessionView
from sluice.policy.errors import BackendError, BadRequest, SluiceError
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.statuses import http_status

_IF_EXISTS: dict[IfExists, pb.IfExists.ValueType] = {
    "error": pb.IF_EXISTS_ERROR,
    "return": pb.IF_EXISTS_RETURN,
    "restart": pb.IF_EXISTS_RESTART,
}
_NOT_NUMBERED = -1
# What to do, by gRPC's own words for what went wrong.
_HINTS = {
    "http1.x server": " Is that the gateway's HTTP port? Then its URL begins with http://.",
    "Connection refused": NOBODY,
    "address lookup failed": NO_HOST,
}
# Without a code of the gateway's, these come from what lies between, and say nothing about the call.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}


def open_request(opening: Opening) -> pb.OpenRequest:
    request = pb.OpenRequest(
        model=opening.model,
        session=opening.session or "",
        version=opening.version or "",
        label=opening.label or "",
        ttl_s=opening.ttl_s,
        if_exists=_IF_EXISTS[opening.if_exists],
    )
    write_tensors(request.state, opening.state or {})
    return request


def step_request(call: Call) -> pb.StepRequest:
    request = pb.StepRequest(session=call.session, step=call.step, outputs=call.outputs)
    write_tensors(request.inputs, call.inputs)
    return request


def many_request(call: ManyCall) -> pb.StepManyRequest:
    steps = [_NOT_NUMBERED if step is None else step for step in call.steps]
    request = pb.StepManyRequest(model=call.model, sessions=call.sessions, steps=steps, outputs=call.outputs)
    write_tensors(request.inputs, call.inputs)
    return request


def stream_request(call: Call, tag: int, timeout_s: float) -> pb.StepManyRequest:
    """One session's step on a stream."""
    inputs = {name: array[np.newaxis] for name, array in call.inputs.items()}
    request = many_request(ManyCall(call.model, [call.session], [call.version], inputs, [call.step], call.outputs))
    request.tag, request.timeout_ms = tag, max(1, round(timeout_s * 1000))
    return request


def opened(session: pb.Session) -> Opened:
    return Opened(session.session, session.model, session.version, session.step)


def view(session: pb.Session) -> SessionView:
    return SessionView(
        session.session,
        session.model,
        session.version,
        session.step,
        session.waiting,
        session.opened_at.ToDatetime(UTC),
        session.last_used_at.ToDatetime(UTC),
        session.expires_at.ToDatetime(UTC),
        session.state_bytes,
    )


def answer(reply: pb.StepResponse) -> Answer:
    return Answer(read_tensors(reply.outputs), reply.step, reply.replayed)


def answers(reply: pb.StepManyResponse) -> Sequence[Answer | SluiceError]:
    """What became of each session."""
    columns = read_tensors(reply.outputs)
    errors = {each.index: told(each.error) for each in reply.errors}
    return [
        errors.get(index) or Answer({name: column[index] for name, column in columns.items()}, step)
        for index, step in enumerate(reply.steps)
    ]


def told(error: pb.Error) -> SluiceError:
    """The exception for an error within a message."""
    waiting = error.retry_after_s if error.HasField("retry_after_s") else None
    details = orjson.loads(error.details or "{}")
    return error_of(error.code, error.message, details=details, retry_after_s=waiting)


def refusal(error: grpc.aio.AioRpcError) -> SluiceError:
    """The exception for a call that failed: the gateway's own error, or that there is none."""
    entries: Any = error.trailing_metadata() or ()
    trailing = dict(entries)
    code, reason, waiting = trailing.get("sluice-code", ""), error.details() or "", trailing.get("retry-after", "")
    details = orjson.loads(trailing.get("sluice-details", "{}"))
    if not code and error.code() in _BROKEN:
        hint = next((hint for words, hint in _HINTS.items() if words in reason), "")
        return NoAnswer(f"The gateway did not answer: {reason or error.code().name}.{hint}")
    if code == BackendError.code and http_status(error.code().name) == BadRequest.http_status:
        code = BadRequest.code  # the model server's word about the request, passed on; HTTP has this code for it, too
    return error_of(
        code,
        reason,
        status=error.code().name,
        details=details,
        retry_after_s=int(waiting) if waiting.isdecimal() else None,
    )
