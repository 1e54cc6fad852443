"""TensorFlow Serving's REST paths: which call a request's method and target name.

It does not know HTTP servers, models, or what a call means; the gateway and the model server both use it.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from sluice.policy.errors import BadRequest

Verb = Literal["predict", "classify", "regress", "status", "metadata"]

_ANY_CALL = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_CALL = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?(?::(predict|classify|regress)|/(metadata))?",
    re.IGNORECASE,
)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_VERSION = re.compile(r"[0-9]{1,19}")
_VERSION_LIMIT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class RestCall:
    """One call of the REST API; without `version` and `label` it is about the newest version."""

    verb: Verb
    model: str
    version: int | None = None
    label: str | None = None


def rest_call(method: str, target: str) -> RestCall | None:
    """The call that a request names; `target` is as it was sent: percent-encoded, with its query.

    None if it names nothing of this API, which answers 404 there.

    Raises:
        BadRequest: it is below /v1/, and no call.
    """
    path = unquote(target, errors="replace")
    if not _ANY_CALL.fullmatch(path):
        return None
    found = _CALL.fullmatch(path)
    verb: Any = (found[4] or (found[5] and "metadata") or "status") if found else None  # a verb's case counts
    if found is None or method != _METHODS.get(verb) or _BAD_PERCENT.search(target):
        raise BadRequest(
            f"{method} {target:.200} is no call. There are POST /v1/models/NAME:predict (also :classify, :regress), "
            "GET /v1/models/NAME and GET /v1/models/NAME/metadata; /versions/NUMBER or /labels/LABEL may follow NAME."
        )
    return RestCall(verb, found[1], read_version(found[2] or ""), found[3])


def read_version(text: str) -> int | None:
    """A model's version, in decimal digits; None for an empty text: the newest.

    Raises:
        BadRequest: it is no number of up to 63 bits.
    """
    if not text:
        return None
    if _VERSION.fullmatch(text) and int(text) <= _VERSION_LIMIT:
        return int(text)
    raise BadRequest(f"A version is a whole number of up to 63 bits; got {text!r:.80}.")


_METHODS = {"predict": "POST", "classify": "POST", "regress": "POST", "status": "GET", "metadata": "GET"}
