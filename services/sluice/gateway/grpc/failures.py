"""Errors as gRPC's statuses, metadata and messages: the same rules for all services."""

import json

import orjson

from sluice.policy.errors import SluiceError
from sluice.wire.grpc_frames import CallFailed
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.statuses import as_tf_serving


def failure(error: SluiceError) -> CallFailed:
    """How a call of our own services ends that failed."""
    return CallFailed(error.grpc_status, error.message, _metadata(error, error.code))


def tf_serving_failure(error: SluiceError) -> CallFailed:
    """How a call of TensorFlow Serving's services ends: with the model server's own status, where it has spoken."""
    status, sentence = error.origin or (error.grpc_status, error.message)
    _, code, _ = as_tf_serving(error)
    return CallFailed(status, sentence, _metadata(error, code))


def error_message(error: SluiceError) -> messages.Error:
    """An error of a part of a call of our own services, the rest of which goes on."""
    details = orjson.dumps(dict(error.details)).decode() if error.details else ""
    return messages.Error(code=error.code, message=error.message, retry_after_s=error.retry_after_s, details=details)


def _metadata(error: SluiceError, code: str) -> list[tuple[str, str]]:
    metadata = [("sluice-code", code)]
    if error.retry_after_s is not None:
        metadata.append(("retry-after", str(error.retry_after_s)))
    if error.details:
        metadata.append(("sluice-details", json.dumps(dict(error.details))))  # in ASCII, as header fields have to be
    return metadata
