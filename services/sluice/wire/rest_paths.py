"""TensorFlow Serving's REST paths: which call a request's method and target name.

It does not know HTTP servers, models, or what a call means; the gateway and the model server both use it.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from sluice.policy.errors import BadRequest

Verb = Literal["predict", "classify", "regress", "status", "metadata"]

_ANY_CALL = re.compile(r"/v1/.*", re.IGNORECASE)
_CALL = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?(?::(predict|classify|regress)|/(metadata))?",
    re.IGNORECASE,
)
_CHARACTERS = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}"
_TARGET = re.compile(r"(?:C)*(?:\?(?:C|\?)*)?(?:#(?:C|\?)*)?".replace("C", _CHARACTERS))  # RFC 3986
_VERSION = re.compile(r"0*[0-9]{1,19}")
_NAMED_VERSION = re.compile("/v[12]/models/[^/:]+/versions/(?![0-9]+(?:[/:?#]|$))([^/:?#]+)", re.IGNORECASE)
_VERSION_LIMIT = (1 << 63) - 1


class BadTarget(BadRequest):
    """A request's target has characters that must be percent-encoded, or a percent sign that encodes none."""


class BadVersion(BadRequest):
    """No model version can have this number."""


class NoCall(BadRequest):
    """There is no such call."""


class WrongMethod(BadRequest):
    """There is such a call, and it takes another method, `takes`."""

    def __init__(self, takes: str, got: str) -> None:
        super().__init__(f"This path takes {takes}; got {got}.")
        self.takes = takes


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
        BadTarget: it cannot be read. BadVersion: no version has its number.
        NoCall, WrongMethod, BadRequest: it is below /v1/, and no call.
    """
    if not _TARGET.fullmatch(target):
        raise BadTarget(f"Characters of a path are percent-encoded as RFC 3986 says; {target!r:.200} came.")
    if not _ANY_CALL.fullmatch(target):
        return None
    verb: Any = ""
    found = _CALL.fullmatch(target)  # names are decoded when they are known, so that they may hold any character
    if found is None or method != _METHODS.get(verb := _verb(found[4], found[5])):
        raise _no_call(method, target, verb)
    label = None if found[3] is None else unquote(found[3])
    return RestCall(verb, unquote(found[1]), read_version(found[2] or ""), label)


def _verb(action: str | None, about: str | None) -> str:
    """As in TensorFlow Serving, an action counts in small letters only, and METADATA is the status."""
    return action or ("metadata" if about == "metadata" else "status")


def _no_call(method: str, target: str, verb: str) -> BadRequest:
    if verb in _METHODS:
        return WrongMethod(_METHODS[verb], method)
    return version_by_name(target) or NoCall(
        f"{method} {target:.200} is no call. There are POST /v1/models/NAME:predict (also :classify, :regress), "
        "GET /v1/models/NAME and GET /v1/models/NAME/metadata; /versions/NUMBER or /labels/LABEL may follow NAME."
    )


def version_by_name(target: str) -> BadRequest | None:
    """What is wrong with a path that has something else than digits in the place of a version; None: it has not."""
    if (named := _NAMED_VERSION.match(target)) is None:
        return None
    return BadRequest(
        f"A version is a whole number, as in /versions/1; got {named[1]!r:.80}. A label stands behind /labels/."
    )


def read_version(text: str) -> int | None:
    """A model's version, in decimal digits; None for an empty text: the newest.

    Raises:
        BadVersion: it is no number of up to 63 bits.
    """
    if not text:
        return None
    if _VERSION.fullmatch(text) and (version := int(text.lstrip("0") or "0")) <= _VERSION_LIMIT:
        return version
    raise BadVersion(f"A version is a whole number of up to 63 bits; got {text!r:.80}.")


# What TensorFlow Serving's HTTP server knows; another method is not implemented.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_METHODS = {"predict": "POST", "classify": "POST", "regress": "POST", "status": "GET", "metadata": "GET"}
