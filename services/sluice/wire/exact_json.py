"""Reads the JSON that the usual, faster reader does not: numbers that are not finite, and all of TensorFlow Serving's.

It does not know requests, and works on whole texts only.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1
_EXPONENT = 308  # of the largest power of ten that a double holds
_SPACE = " \t\n\r"
_BYTE_ORDER_MARK = re.compile(rb"\xef?\xbb?\xbf?")
_RARE = (b"Inf", b"-NaN", b"\\u")  # numbers that Python spells otherwise, and halves of surrogate pairs
_BEFORE_COLON = frozenset({b'"', b" ", b"\t", b"\n", b"\r"})  # of a key; in text it is mostly another letter
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-NaN|Inf(?:inity)?', re.DOTALL)
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"(%s)(%s)?|(%s)|\\." % (_HIGH, _LOW, _LOW), re.DOTALL)


class Members(dict[str, Any]):
    """An object in which a key comes twice: the first counts, and `pairs` holds all."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self.pairs = pairs


def pairs_of(members: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """An object's members as they came, with those whose key had come before."""
    return members.pairs if isinstance(members, Members) else members.items()


def may_repeat(body: bytes, fields: dict[str, Any]) -> bool:
    """Whether a key may come twice in the text of a request, or in an object in it, whose `fields` have been read.

    Each key has a colon behind it; text may hold more. Most requests are through after one look for colons.
    """
    colons = body.count(b":")
    if colons == len(fields) or colons == _members_above(fields) or colons == (members := _members_of(fields)):
        return False
    before = [part[-1:] for part in body.split(b":")[:-1]]
    return sum(map(_BEFORE_COLON.__contains__, before)) != members


def _members_above(fields: dict[str, Any]) -> int:
    """The members of a request and of its inputs, or of its rows."""
    columns, rows = fields.get("inputs"), fields.get("instances")
    found = len(fields) + (len(columns) if type(columns) is dict else 0)
    if type(rows) is list and rows and type(rows[0]) is dict and set(map(type, rows)) == {dict}:
        found += sum(map(len, rows))
    return found


def _members_of(value: Any) -> int:
    """All members, but for those behind a list's first value that is neither a list nor an object."""
    if isinstance(value, dict):
        return len(value) + sum(map(_members_of, value.values()))
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return sum(map(_members_of, value))
    return 0


def read_json(body: bytes) -> Any:
    """The value of a text, in which `NaN` and `Infinity` are numbers, and which may begin with a byte order mark.

    Raises:
        ValueError: it is none. RecursionError: it is nested too deeply.
    """
    text = body.decode("utf-8-sig").lstrip(_SPACE)
    value, end = _FINITE.raw_decode(text)
    if text[end:].strip(_SPACE):
        raise ValueError("text behind the value")
    json.dumps(value, ensure_ascii=False).encode()  # refuses one half of a surrogate pair
    return value


def read_as_tf_serving(body: bytes) -> Any:
    """The value that a text begins with, as RapidJSON 1.1 reads it; what follows is ignored.

    Of a key that comes twice the first counts. Bytes that are not UTF-8 are half surrogates, as in the names of files.

    Raises:
        ValueError: it begins with none. RecursionError: it is nested too deeply.
    """
    if any(each in body for each in _RARE):
        body = _TOKEN.sub(_respelled, body)
    text = _BYTE_ORDER_MARK.sub(b"", body, 1).decode(errors="surrogateescape").lstrip(_SPACE)
    return _AS_TF_SERVING.raw_decode(text)[0]


def _respelled(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if not token.startswith(b'"'):
        return b"NaN" if token == b"-NaN" else b"Infinity"
    return _ESCAPE.sub(_half, token) if b"\\u" in token else token


def _half(found: re.Match[bytes]) -> bytes:
    """An escape; the second half of a surrogate pair alone stands for the bytes that it would be in UTF-8."""
    first, second, alone = found.groups()
    if first and not second:
        raise ValueError("half of a surrogate pair")
    return chr(int(alone[-4:], 16)).encode(errors="surrogatepass") if alone else found[0]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Members(pairs)


def _whole(text: str) -> float:
    """A whole number; one of more than 64 bits becomes a float."""
    number = int(text) if len(text) <= len(str(_INT64_MIN)) else _finite(text)
    return number if _INT64_MIN <= number <= _UINT64_MAX else float(number)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def _in_range(text: str) -> float:
    """A fraction; whether it is too large is told by its exponent, so that a little more than a double is infinite."""
    number = float(text)
    if "e" in text or "E" in text:
        digits, _, exponent = text.lower().partition("e")
        if len(exponent.lstrip("+")) > 1 and int(exponent) > _EXPONENT + len(digits.partition(".")[2]):
            raise ValueError(f"{text} is too large")
        return number
    return _finite(text)


_FINITE = json.JSONDecoder(parse_int=_whole, parse_float=_finite)
_AS_TF_SERVING = json.JSONDecoder(parse_int=_whole, parse_float=_in_range, object_pairs_hook=_members)
