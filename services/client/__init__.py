"""The Python client: sessions and predictions over HTTP and gRPC, asynchronous and not, numpy in and out."""

from services.client.client import AsyncClient
from services.client.errors import NoAnswer
from services.client.session import AsyncSession
from services.client.stream import AsyncStream
from services.client.sync import Client, Session, Stream
from services.client.values import Columns, Page, SessionView
from services.policy.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
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
    "NotFound",
    "Page",
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
