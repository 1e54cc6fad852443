"""The Python client, over HTTP and gRPC, asynchronous and not: sessions and everything without one, in numpy."""

from sluice.client.client import AsyncClient
from sluice.client.errors import NoAnswer
from sluice.client.session import AsyncSession
from sluice.client.stream import AsyncStream
from sluice.client.sync import Client, Session, Stream
from sluice.client.values import (
    Buckets,
    CalibrationFile,
    Columns,
    Ended,
    Generated,
    Page,
    Recognized,
    RecognizedRow,
    ServedModel,
    SessionView,
    Token,
)
from sluice.policy.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    NotCalibrated,
    NotFound,
    SessionEnded,
    SessionExists,
    SluiceError,
    StepMismatch,
    TooMany,
    Unavailable,
)
from sluice.policy.generation import Beam, Sampling

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "BadRequest",
    "Beam",
    "Buckets",
    "CalibrationFile",
    "Client",
    "Columns",
    "Conflict",
    "DeadlineExceeded",
    "Ended",
    "Generated",
    "NoAnswer",
    "NotCalibrated",
    "NotFound",
    "Page",
    "Recognized",
    "RecognizedRow",
    "Sampling",
    "ServedModel",
    "Session",
    "SessionEnded",
    "SessionExists",
    "SessionView",
    "SluiceError",
    "StepMismatch",
    "Stream",
    "Token",
    "TooMany",
    "Unavailable",
]
