"""Errors as JSON and headers, refused fields in words, server-sent events: as every HTTP door of ours writes them."""

from collections.abc import Mapping
from typing import Any

from sluice.policy.errors import SluiceError
from sluice.wire.shown import as_json

# Pydantic's type of an error → what the field takes.
_TAKES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "{words}",
    "string_too_short": "text of {min_length} or more characters",
    "too_short": "{min_length} values or more",
    "too_long": "{max_length} values at most",
    "string_too_long": "text of up to {max_length} characters",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "int_from_float": "a whole number",
    "path_type": "a path",
    "tuple_type": "a list",
}


def sse(name: str, data: bytes) -> bytes:
    """A server-sent event; `data` is JSON."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def error_body(error: SluiceError) -> dict[str, Any]:
    """`{"error": sentence, "code": code, "details"?: {...}}`."""
    details = {"details": dict(error.details)} if error.details else {}
    return {"error": error.message, "code": error.code, **details}


def error_headers(error: SluiceError) -> Mapping[str, str]:
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return {"Sluice-Code": error.code, **retry}


def what_is_wrong(error: Mapping[str, Any], patterns: Mapping[str, str] | None = None) -> str:
    """A sentence, without its end, about one field; `error` is pydantic's. `patterns` of text say the same in words."""
    kind, field = error["type"], ".".join(map(str, error["loc"][1:])) or error["loc"][0]
    if kind == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {field}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "value_error":
        return f"{field}: {error['ctx']['error']}"
    takes = what_it_takes(error, patterns)
    if takes is None:
        return f"{field}: {error['msg']}"
    quotes = ": put it in quotes" if kind == "string_type" and isinstance(error["input"], int | float) else ""
    return f"{field} takes {takes}; {as_json(error['input'])} came{quotes}"


def what_it_takes(error: Mapping[str, Any], patterns: Mapping[str, str] | None = None) -> str | None:
    """What a field takes that has something else, as a part of a sentence; None: there are no words for it."""
    about = {name: f"{each:g}" if isinstance(each, float) else each for name, each in error.get("ctx", {}).items()}
    pattern = about.get("pattern", "")
    words = (patterns or {}).get(pattern, "text of another form")
    return _TAKES[error["type"]].format(**about, words=words) if error["type"] in _TAKES else None
