"""What an HTTP answer that is an error says."""

from collections.abc import Mapping

import orjson

from services.client.errors import error_of
from services.policy.errors import SluiceError


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> SluiceError:
    """The error that an answer is; one that is not the gateway's own, such as a proxy's, is read by its status."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        body = {"error": content.decode(errors="replace")}
    told = headers.get("retry-after", "")
    return error_of(
        headers.get("sluice-code") or str(body.get("code", "")),
        str(body.get("error", "")),
        status=status,
        details=body.get("details"),
        retry_after_s=int(told) if told.isdecimal() else None,
    )
