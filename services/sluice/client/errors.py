"""The gateway's errors as exceptions of the one tree in `sluice.policy.errors`, and the one error of our own."""

from collections.abc import Mapping
from typing import Any

from sluice.policy.errors import (
    BackendError,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Internal,
    NotFound,
    SessionEnded,
    SluiceError,
    StateNotFinite,
    TooLarge,
    TooMany,
    Unavailable,
    error_classes,
)


class NoAnswer(SluiceError):
    """No answer came: the gateway could not be reached, the connection broke, the time was over, or another answered.

    A `Client` that was closed raises it, too. The call may have run. A numbered step can be sent again as it is.
    """

    code, http_status, grpc_status = "no_answer", 503, "UNAVAILABLE"


class OtherProtocol(NoAnswer):
    """What listens at an http:// URL does not speak HTTP, as a gateway's gRPC port does not."""


# What the sentence of a `NoAnswer` ends with, where no connection came about.
NOBODY = " Nothing listens there: is the gateway running, and is this its port?"
NO_HOST = " There is no such host: is its name right?"

_BY_CODE: Mapping[str, type[SluiceError]] = {kind.code: kind for kind in error_classes() if "code" in vars(kind)}
_BY_STATUS: Mapping[int | str | None, type[SluiceError]] = {
    **{kind.http_status: kind for kind in (BadRequest, NotFound, Conflict, SessionEnded, TooLarge, StateNotFinite)},
    **{kind.http_status: kind for kind in (TooMany, Internal, BackendError, Unavailable, DeadlineExceeded)},
    **{kind.grpc_status: kind for kind in (BadRequest, NotFound, Conflict, TooMany)},
}

# What the gateway's sentences call by the words of its own doors, as it is called here.
_IN_PYTHON: Mapping[str, str] = {
    "POST /v1/models/{model}/sessions, or over gRPC with Open": "client.open(model)",
    "Sluice-Timeout-Ms, over gRPC with a later deadline": "a larger timeout_s",
}


def error_of(
    code: str,
    message: str,
    *,
    status: int | str | None = None,
    details: Mapping[str, Any] | None = None,
    retry_after_s: int | None = None,
) -> SluiceError:
    """The exception for an error that came; `status` is HTTP's number or gRPC's name, where there is one.

    The code chooses the class; one that this client does not know gets the class of its status.
    """
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, SluiceError)
    for theirs, ours in _IN_PYTHON.items():
        message = message.replace(theirs, ours)
    error = kind(message or f"The gateway gave no reason{'' if status is None else f' (status {status})'}.")
    error.details = dict(details or {})
    # What came is truer than what the class says.
    vars(error).update(retry_after_s=retry_after_s, code=code or getattr(kind, "code", "unknown"))
    if isinstance(status, int):
        vars(error).update(http_status=status)
    return error
