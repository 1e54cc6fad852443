"""What an HTTP answer says that is an error, or that is not the gateway's."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from sluice.client.errors import NoAnswer, error_of
from sluice.policy.errors import BadRequest, SluiceError
from sluice.wire.rest import parse_json

T = TypeVar("T")


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> SluiceError:
    """The error that an answer is; one that is not the gateway's own, such as a proxy's, is read by its status."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        body = {}
    told = headers.get("retry-after", "")
    return error_of(
        headers.get("sluice-code") or str(body.get("code") or ""),
        str(body.get("error") or body.get("reason") or content.decode(errors="replace")),  # `reason`: of /readyz
        status=status,
        details=body.get("details"),
        retry_after_s=int(told) if told.isdecimal() else None,
    )


def read_json(url: str, content: str | bytes) -> dict[str, Any]:
    """What an answer from `url` says that is no error.

    Raises:
        NoAnswer: it is no JSON object, and so not the gateway's.
    """
    body = content.encode() if isinstance(content, str) else content
    try:
        answer = parse_json(body)
    except BadRequest:
        answer = None
    if isinstance(answer, dict):
        return answer
    raise _no_gateway(url, "a JSON object", body)


def read_fields(url: str, content: bytes, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of an answer from `url` that is no error.

    Raises:
        NoAnswer: fields are missing or of another form.
    """
    body = read_json(url, content)
    try:
        return read(body)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _no_gateway(url, "the fields that a gateway writes", content) from None


def _no_gateway(url: str, expected: str, body: bytes) -> NoAnswer:
    return NoAnswer(
        f"{url} did not answer as a gateway does: expected {expected}, got {body.decode(errors='replace')!r:.80}. "
        "Give the gateway's own URL, or see what its proxy answers."
    )
