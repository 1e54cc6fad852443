"""What the headers of requests say: how a call is carried out, and ids for requests that bring none.

It does not know calls, bodies or connections.
"""

import re
import secrets
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from sluice.gateway.core.pending import read_batch, read_priority
from sluice.policy.batch import PRIORITIES
from sluice.policy.errors import BadRequest

Header = tuple[bytes, bytes]

INFERENCE_HEADER = b"inference-header-content-length"
EVENTS = b"text/event-stream"
_COVER_JSON = (b"application/json", b"application/*", b"*/*")  # the more exact goes before the less
_WEIGHT = re.compile(rb"[01](\.[0-9]{0,3})?")
_DIGITS = 9
_REQUEST_ID_LIMIT = 128
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class CallOptions(NamedTuple):
    """What a request's headers say of how it is carried out, and its body's encoding."""

    timeout_s: float | None = None
    encoding: str = ""
    priority_s: float = PRIORITIES["normal"]
    exact: bool = False
    traced: bool = False  # there is a `traceparent`, which may be of no use


class RequestIds:
    """Ids for requests that bring none: short, and different from another process's."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = count(1)

    def __call__(self, headers: Iterable[Header]) -> bytes:
        """The request's own `X-Request-Id`, cut off where it is too long, or a new one."""
        for name, value in headers:
            if name == b"x-request-id" and not _CONTROL.search(value):
                return bytes(value[:_REQUEST_ID_LIMIT])
        return f"{self._prefix}-{next(self._count):x}".encode()

    def name(self, headers: list[Header]) -> bytes:
        """As called, and from now on the headers have it: a line in the log and the answer say the same."""
        request_id = self(headers)
        headers.append((b"x-request-id", request_id))
        return request_id


def read_headers(headers: Iterable[Header], session: str | None = None) -> CallOptions:
    """What the headers say; `session` is the one that the path names.

    Raises:
        BadRequest: one cannot be read, or names another session than the path.
    """
    timeout_s, encoding, priority_s, exact, traced = CallOptions()
    for name, value in headers:
        if name == b"sluice-timeout-ms":
            timeout_s = read_timeout(value)
        elif name == b"sluice-priority":
            priority_s = read_priority(value.decode("latin-1"))
        elif name == b"sluice-batch":
            exact = read_batch(value.decode("latin-1"))
        elif name == b"sluice-session" and session is not None:
            check_session_header(value.decode("latin-1"), session)
        elif name == b"content-encoding":
            encoding = value.decode("latin-1")
        elif name == b"traceparent":
            traced = True
    return CallOptions(timeout_s, encoding, priority_s, exact, traced)


def read_timeout(value: bytes) -> float:
    """`Sluice-Timeout-Ms`, whole milliseconds, more than 0; in seconds."""
    if not value.isdigit() or len(value) > _DIGITS or int(value) == 0:
        raise BadRequest(
            f"Sluice-Timeout-Ms takes whole milliseconds, more than 0; got {value.decode('latin-1')!r:.80}."
        )
    return int(value) / 1000


def check_session_header(header: str | None, id: str) -> None:
    if header is not None and header != id:
        raise BadRequest(f"The header Sluice-Session must name the session of the path, {id!r}; it names {header!r}.")


def accepts(kind: bytes, headers: Iterable[Header]) -> bool:
    """Whether `Accept` names a media type, with a weight of more than 0 and no less than that of JSON.

    See RFC 9110, section 12.5.1.
    """
    given = [value.lower() for name, value in headers if name == b"accept"]
    if not any(kind in value for value in given):
        return False
    weights = dict(_weighed(each) for value in given for each in value.split(b","))
    of_json = next((weights[each] for each in _COVER_JSON if each in weights), 0.0)
    return 0 < weights.get(kind, 0.0) >= of_json


def _weighed(range_: bytes) -> tuple[bytes, float]:
    """A media range without its parameters, and its weight: 1 where there is none that can be read."""
    kind, *parameters = (part.strip() for part in range_.split(b";"))
    given = next((each[2:] for each in parameters if each.startswith(b"q=")), b"")
    return kind, float(given) if _WEIGHT.fullmatch(given) else 1.0


def header_length(headers: Iterable[Header]) -> int | None:
    """How many bytes of an infer request's body are JSON; None: all."""
    for name, value in headers:
        if name == INFERENCE_HEADER:
            if not value.isdigit() or len(value) > _DIGITS:
                got = value.decode("latin-1")
                raise BadRequest(f"Inference-Header-Content-Length is a number of bytes; got {got!r:.80}.")
            return int(value)
    return None
