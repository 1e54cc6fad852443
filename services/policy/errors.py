"""Every error a client can meet: one tree of values, each class with its code, HTTP status and gRPC status.

    SluiceError
    ├── BadRequest             400 INVALID_ARGUMENT    malformed JSON or fields
    │   ├── ShapeMismatch, DtypeMismatch, MissingInput, UnknownInput, InputNotFinite, EmptyInput
    │   └── SignatureNotFound, UnsupportedByModel
    ├── NotFound               404 NOT_FOUND           ModelNotFound, VersionNotFound, SessionNotFound
    ├── Conflict               409                     SessionExists, StepMismatch
    ├── SessionEnded           410 FAILED_PRECONDITION SessionClosed, -Expired, -Evicted, -Lost, -VersionGone
    ├── TooLarge               413 INVALID_ARGUMENT    BodyTooLarge, SequenceTooLong, BatchTooLarge
    ├── StateNotFinite         422 FAILED_PRECONDITION
    ├── TooMany                429 RESOURCE_EXHAUSTED  QueueFull, SessionQueueFull
    ├── Internal               500 INTERNAL
    ├── BackendError           502 INTERNAL            InputRejected
    ├── Unavailable            503 UNAVAILABLE         BackendUnavailable, SessionsFull, Draining
    └── DeadlineExceeded       504 DEADLINE_EXCEEDED

The sentence given to the constructor says what was expected, what came and what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class SluiceError(Exception):
    """An answer that is an error.

    `details` are machine-readable facts for the client (finite JSON values); `retry_after_s` is how long it should
    wait before it tries again, in whole seconds, where waiting helps.
    """

    code: ClassVar[str]
    http_status: ClassVar[int]
    grpc_status: ClassVar[str]
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details


class BadRequest(SluiceError):
    code, http_status, grpc_status = "bad_request", 400, "INVALID_ARGUMENT"


class ShapeMismatch(BadRequest):
    code = "shape_mismatch"


class DtypeMismatch(BadRequest):
    code = "dtype_mismatch"


class MissingInput(BadRequest):
    code = "missing_input"


class UnknownInput(BadRequest):
    code = "unknown_input"


class InputNotFinite(BadRequest):
    code = "input_not_finite"


class EmptyInput(BadRequest):
    code = "empty_input"


class SignatureNotFound(BadRequest):
    code = "signature_not_found"


class UnsupportedByModel(BadRequest):
    code = "unsupported_by_model"


class NotFound(SluiceError):
    code, http_status, grpc_status = "not_found", 404, "NOT_FOUND"


class ModelNotFound(NotFound):
    code = "model_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class SessionNotFound(NotFound):
    code = "session_not_found"


class Conflict(SluiceError):
    code, http_status, grpc_status = "conflict", 409, "ABORTED"


class SessionExists(Conflict):
    code, grpc_status = "session_exists", "ALREADY_EXISTS"


class StepMismatch(Conflict):
    """`details["current"]` is the number of time steps that the session has done."""

    code = "step_mismatch"


class SessionEnded(SluiceError):
    code, http_status, grpc_status = "session_ended", 410, "FAILED_PRECONDITION"


class SessionClosed(SessionEnded):
    code = "session_closed"


class SessionExpired(SessionEnded):
    code = "session_expired"


class SessionEvicted(SessionEnded):
    code = "session_evicted"


class SessionLost(SessionEnded):
    code = "session_lost"


class SessionVersionGone(SessionEnded):
    code = "session_version_gone"


class TooLarge(SluiceError):
    code, http_status, grpc_status = "too_large", 413, "INVALID_ARGUMENT"


class BodyTooLarge(TooLarge):
    code = "body_too_large"


class SequenceTooLong(TooLarge):
    code = "sequence_too_long"


class BatchTooLarge(TooLarge):
    code = "batch_too_large"


class StateNotFinite(SluiceError):
    code, http_status, grpc_status = "state_not_finite", 422, "FAILED_PRECONDITION"


class TooMany(SluiceError):
    code, http_status, grpc_status = "too_many", 429, "RESOURCE_EXHAUSTED"
    retry_after_s = 1


class QueueFull(TooMany):
    code = "queue_full"


class SessionQueueFull(TooMany):
    code = "session_queue_full"


class Internal(SluiceError):
    code, http_status, grpc_status = "internal", 500, "INTERNAL"


class BackendError(SluiceError):
    code, http_status, grpc_status = "backend_error", 502, "INTERNAL"


class InputRejected(BackendError):
    """The model refused a batch for its values: one row may have spoiled it for the others."""


class Unavailable(SluiceError):
    code, http_status, grpc_status = "unavailable", 503, "UNAVAILABLE"
    retry_after_s = 1


class BackendUnavailable(Unavailable):
    code = "backend_unavailable"


class SessionsFull(Unavailable):
    code = "sessions_full"


class Draining(Unavailable):
    code = "draining"


class DeadlineExceeded(SluiceError):
    code, http_status, grpc_status = "deadline_exceeded", 504, "DEADLINE_EXCEEDED"


def error_classes(root: type[SluiceError] = SluiceError) -> Iterator[type[SluiceError]]:
    """Every class below `root` that has a code of its own in the API's table."""
    for child in root.__subclasses__():
        if child in (BadRequest, BackendError) or not child.__subclasses__():
            yield child
        yield from error_classes(child)
