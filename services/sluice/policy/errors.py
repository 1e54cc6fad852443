"""Every error a client can meet: one tree of values, each class with its code, HTTP status and gRPC status.

    SluiceError
    ├── BadRequest             400 INVALID_ARGUMENT    malformed JSON or fields
    │   ├── ShapeMismatch, DtypeMismatch, MissingInput, UnknownInput, InputNotFinite, EmptyInput, InputRejected
    │   └── SignatureNotFound, UnsupportedByModel
    ├── PermissionDenied       403 PERMISSION_DENIED
    ├── NotFound               404 NOT_FOUND           ModelNotFound, VersionNotFound, SessionNotFound,
    │                                                  EvaluationNotFound
    ├── Conflict               409                     SessionExists, StepMismatch, SessionConflict, StateIncompatible,
    │                                                  NotCalibrated, EvaluationConflict
    ├── SessionEnded           410 FAILED_PRECONDITION SessionClosed, -Expired, -Evicted, -Lost, -VersionGone
    ├── TooLarge               413 INVALID_ARGUMENT    BodyTooLarge, SequenceTooLong, BatchTooLarge
    ├── StateNotFinite         422 FAILED_PRECONDITION
    ├── TooMany                429 RESOURCE_EXHAUSTED  QueueFull, SessionQueueFull
    ├── Internal               500 INTERNAL
    ├── BackendError           502 INTERNAL            BatchRefused, BatchCollision
    ├── Unavailable            503 UNAVAILABLE         BackendUnavailable, SessionsFull, Draining
    └── DeadlineExceeded       504 DEADLINE_EXCEEDED

The sentence given to the constructor says what was expected, what came and what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class SluiceError(Exception):
    """An answer that is an error.

    `details` are machine-readable facts for the client (finite JSON values); `retry_after_s` is how long it should
    wait before it tries again, in whole seconds, where waiting helps. `origin` is what the model server said, if it
    did: the name of a gRPC status, and its sentence.
    """

    code: ClassVar[str]
    http_status: ClassVar[int]
    grpc_status: ClassVar[str]
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details
        self.origin: tuple[str, str] | None = None


class BadRequest(SluiceError):
    """The body is not JSON, a field is unknown or of the wrong form, a header cannot be read, or the model takes
    no such value.
    """

    code, http_status, grpc_status = "bad_request", 400, "INVALID_ARGUMENT"


class ShapeMismatch(BadRequest):
    """A value has other axes than the model's input, or its lists differ in length."""

    code = "shape_mismatch"


class DtypeMismatch(BadRequest):
    """A value is of another kind than the model's input, or a whole number does not fit its dtype."""

    code = "dtype_mismatch"


class MissingInput(BadRequest):
    """An input that the signature takes, or the field that holds the inputs, is absent."""

    code = "missing_input"


class UnknownInput(BadRequest):
    """A name that is no input, or no state, of the model."""

    code = "unknown_input"


class InputNotFinite(BadRequest):
    """A number of a session's input or state, or of a row to recognize, is NaN, infinite, or too large."""

    code = "input_not_finite"


class EmptyInput(BadRequest):
    """No rows, no time steps, or an axis of size 0 where the model has a fixed size."""

    code = "empty_input"


class InputRejected(BadRequest):
    """The model refused a batch for its values: one row may have spoiled it for the others."""


class SignatureNotFound(BadRequest):
    """The model version has no signature of this name."""

    code = "signature_not_found"


class UnsupportedByModel(BadRequest):
    """The model's contract does not have what the call needs: a step or scan for sessions, classes to recognize."""

    code = "unsupported_by_model"


class PermissionDenied(SluiceError):
    """The call is switched off on this gateway, or not for this client."""

    code, http_status, grpc_status = "permission_denied", 403, "PERMISSION_DENIED"


class NotFound(SluiceError):
    code, http_status, grpc_status = "not_found", 404, "NOT_FOUND"


class ModelNotFound(NotFound):
    """The model server does not know a model of this name."""

    code = "model_not_found"


class VersionNotFound(NotFound):
    """The model is served, but not in this version."""

    code = "version_not_found"


class SessionNotFound(NotFound):
    """No session of this id is open, and none is remembered to have ended."""

    code = "session_not_found"


class EvaluationNotFound(NotFound):
    """There is no evaluation of this id, or no upload; it may have been deleted."""

    code = "evaluation_not_found"


class Conflict(SluiceError):
    code, http_status, grpc_status = "conflict", 409, "ABORTED"


class SessionExists(Conflict):
    """A session of this id is open already."""

    code, grpc_status = "session_exists", "ALREADY_EXISTS"


class StepMismatch(Conflict):
    """A call's number is neither the current one nor a repeat of the last answered call; `current` is the session's."""

    code = "step_mismatch"


class SessionConflict(Conflict):
    """The session has steps that wait or run, and its state cannot be replaced under them."""

    code = "session_conflict"


class StateIncompatible(Conflict):
    """A saved state belongs to another model or version than the session, or than what is served."""

    code, grpc_status = "state_incompatible", "FAILED_PRECONDITION"


class NotCalibrated(Conflict):
    """No calibration is in use for this model version, so it is not known from which score on a row is rejected."""

    code, grpc_status = "not_calibrated", "FAILED_PRECONDITION"


class EvaluationConflict(Conflict):
    """The evaluation's status does not allow it: there is no report yet, or it has ended."""

    code, grpc_status = "evaluation_conflict", "FAILED_PRECONDITION"


class SessionEnded(SluiceError):
    code, http_status, grpc_status = "session_ended", 410, "FAILED_PRECONDITION"


class SessionClosed(SessionEnded):
    """The session was closed by a client."""

    code = "session_closed"


class SessionExpired(SessionEnded):
    """The session was not used for its idle time, or its total life is over."""

    code = "session_expired"


class SessionEvicted(SessionEnded):
    """The session was the longest idle one when its model was full, and eviction is on."""

    code = "session_evicted"


class SessionLost(SessionEnded):
    """The id was made by an earlier run of the gateway, whose states are gone."""

    code = "session_lost"


class SessionVersionGone(SessionEnded):
    """The model version that the session was opened on is no longer served."""

    code = "session_version_gone"


class TooLarge(SluiceError):
    code, http_status, grpc_status = "too_large", 413, "INVALID_ARGUMENT"


class BodyTooLarge(TooLarge):
    """The request body has more bytes than allowed."""

    code = "body_too_large"


class SequenceTooLong(TooLarge):
    """A scan has more time steps than allowed in one call, or a sequence is longer than its longest bucket."""

    code = "sequence_too_long"


class BatchTooLarge(TooLarge):
    """A predict request has more rows than may wait for its model."""

    code = "batch_too_large"


class StateNotFinite(SluiceError):
    """The step would have made this session's state NaN or infinite; the state is as it was before."""

    code, http_status, grpc_status = "state_not_finite", 422, "FAILED_PRECONDITION"


class TooMany(SluiceError):
    code, http_status, grpc_status = "too_many", 429, "RESOURCE_EXHAUSTED"
    retry_after_s = 1


class QueueFull(TooMany):
    """As many rows wait for this model as may wait, or as many events of an answer wait to be read."""

    code = "queue_full"


class SessionQueueFull(TooMany):
    """As many steps of this session wait or run as may."""

    code = "session_queue_full"


class Internal(SluiceError):
    """A bug in the gateway; it is logged with the request id."""

    code, http_status, grpc_status = "internal", 500, "INTERNAL"


class BackendError(SluiceError):
    """The model server failed, or its answer is not what its signature promises; its own text is passed on."""

    code, http_status, grpc_status = "backend_error", 502, "INTERNAL"


class BatchRefused(BackendError):
    """The model was not in a state to run a batch, for which one row may be the reason."""


class BatchCollision(BackendError):
    """The model server batches, too, and refused the batch as it met one of another shape there."""


class Unavailable(SluiceError):
    code, http_status, grpc_status = "unavailable", 503, "UNAVAILABLE"
    retry_after_s = 1


class BackendUnavailable(Unavailable):
    """The model server, the evaluator or its data's store cannot be reached, or no version can be called now."""

    code = "backend_unavailable"


class SessionsFull(Unavailable):
    """The model has as many open sessions as it may have."""

    code = "sessions_full"


class Draining(Unavailable):
    """The gateway is stopping and opens no more sessions."""

    code = "draining"


class DeadlineExceeded(SluiceError):
    """The answer did not come within the request's time, or could not have."""

    code, http_status, grpc_status = "deadline_exceeded", 504, "DEADLINE_EXCEEDED"


def error_classes(root: type[SluiceError] = SluiceError) -> Iterator[type[SluiceError]]:
    """Every class below `root` that has a code of its own in the API's table; a transport's own variants have none."""
    for child in _subclasses(root):
        if child in (BadRequest, BackendError) or not _subclasses(child):
            yield child
        yield from error_classes(child)


def _subclasses(error: type[SluiceError]) -> list[type[SluiceError]]:
    return [child for child in error.__subclasses__() if child.__module__ == __name__]
