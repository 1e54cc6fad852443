"""Errors of the model server: a gRPC status name and a sentence, as TensorFlow Serving gives them."""

from typing import Any

from sluice.model_server.runtime import tf


class ServingError(Exception):
    """A call that failed; `status` is the name of a gRPC status."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class InvalidArgument(ServingError):
    def __init__(self, message: str) -> None:
        super().__init__("INVALID_ARGUMENT", message)


class NotFound(ServingError):
    def __init__(self, message: str) -> None:
        super().__init__("NOT_FOUND", message)


_STATUSES: dict[int, str] = {
    tf.errors.CANCELLED: "CANCELLED",
    tf.errors.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    tf.errors.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    tf.errors.NOT_FOUND: "NOT_FOUND",
    tf.errors.ALREADY_EXISTS: "ALREADY_EXISTS",
    tf.errors.PERMISSION_DENIED: "PERMISSION_DENIED",
    tf.errors.UNAUTHENTICATED: "UNAUTHENTICATED",
    tf.errors.RESOURCE_EXHAUSTED: "RESOURCE_EXHAUSTED",
    tf.errors.FAILED_PRECONDITION: "FAILED_PRECONDITION",
    tf.errors.ABORTED: "ABORTED",
    tf.errors.OUT_OF_RANGE: "OUT_OF_RANGE",
    tf.errors.UNIMPLEMENTED: "UNIMPLEMENTED",
    tf.errors.INTERNAL: "INTERNAL",
    tf.errors.UNAVAILABLE: "UNAVAILABLE",
    tf.errors.DATA_LOSS: "DATA_LOSS",
}


def status_of(error: Exception) -> str:
    """The gRPC status of what TensorFlow raised."""
    return _STATUSES.get(getattr(error, "error_code", 0), "UNKNOWN")


def from_tensorflow(error: Any) -> ServingError:
    """What TensorFlow raised while a model ran; a `ValueError` is a shape that does not fit the graph."""
    if isinstance(error, ValueError):
        return InvalidArgument(str(error))
    return ServingError(status_of(error), error.message)
