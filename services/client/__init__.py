"""The Python client, over HTTP and gRPC, asynchronous and not: sessions and everything without one, in numpy."""

from services.client.client import AsyncClient
from services.client.errors import NoAnswer
from services.client.session import AsyncSession
from services.client.stream import AsyncStream
from services.client.sync import Client, Session, Stream
from services.client.values import Columns, Ended, Generated, Page, Recognized, RecognizedRow, SessionView, Token
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
from services.policy.generation import Beam, Sampling

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "BadRequest",
    "Beam",
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
