"""gRPC statuses on TensorFlow Serving's REST paths, and errors as they are told there."""

from sluice.policy.errors import BadRequest, SluiceError

_HTTP = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "UNIMPLEMENTED": 501,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def http_status(grpc_status: str) -> int:
    """The HTTP status for the name of a gRPC status; 500 for a failure that has none of its own."""
    return _HTTP.get(grpc_status, 500)


def as_tf_serving(error: SluiceError) -> tuple[int, str, str]:
    """HTTP status, code and sentence of an error on these paths: the model server's own, where it has spoken."""
    if error.origin is None:
        return error.http_status, error.code, error.message
    name, sentence = error.origin
    status = http_status(name)
    return status, BadRequest.code if status == BadRequest.http_status else error.code, sentence or error.message
