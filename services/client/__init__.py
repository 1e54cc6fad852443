"""The Python client, over HTTP and gRPC, asynchronous and not: sessions and everything without one, in numpy."""

from services.client.client import AsyncClient
from services.client.errors import NoAnswer
from services.client.session import AsyncSession
from services.client.stream import AsyncStream
from services.client.sync import Client, Session, Stream
from services.client.values import Columns, Page, Recognized, RecognizedRow, SessionView
from services.policy.errors import (
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

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "BadRequest",
    "Client",
    "Columns",
    "Conflict",
    "DeadlineExceeded",
    "NoAnswer",
    "NotCalibrated",
    "NotFound",
    "Page",
    "Recognized",
    "RecognizedRow",
    "Session",
    "SessionEnded",
    "SessionExists",
    "SessionView",
    "SluiceError",
    "StepMismatch",
    "Stream",
    "TooMany",
    "Unavailable",
]
