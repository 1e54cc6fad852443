"""Whether names, numbers and outputs that a caller gives beside the values are such; says so in Python's words."""

import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from sluice.policy.errors import BadRequest

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a header's name: RFC 9110, section 5.6.2
_ENDS = re.compile(r"[\r\n\0]")


def check_name(what: str, name: object) -> None:
    """Raises: ValueError: the name of `what` is no text, or empty."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} is named by text of one character or more; got {name!r:.80}.")


def check_number(what: str, value: object, unit: str = "") -> None:
    """Raises: BadRequest: `what` is given, and no number."""
    if value is not None and not isinstance(value, Real):
        raise BadRequest(f"{what} is a number{unit}; got {value!r:.80}.")


def check_whole(what: str, value: object) -> None:
    """Raises: BadRequest: `what` is given, and no whole number."""
    if value is not None and not isinstance(value, Integral):
        raise BadRequest(f"{what} is a whole number; got {value!r:.80}.")


def check_headers(headers: object) -> None:
    """Raises: ValueError: headers are given, and are no texts by their names."""
    if headers is None:
        return
    pairs = headers.items() if isinstance(headers, Mapping) else [(headers, None)]
    for name, value in pairs:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not (isinstance(name, str) and _TOKEN.fullmatch(name) and isinstance(text, str) and not _ENDS.search(text)):
            raise ValueError(f"headers holds texts by their names, such as {{'x-tenant': 'a'}}; got {headers!r:.80}.")


def names_of(outputs: Sequence[str] | None) -> Sequence[str]:
    """The names of the outputs that are wanted; none for all.

    Raises:
        ValueError: they are one text, which Python takes for a list of its letters, or no texts.
    """
    if outputs is None:
        return ()
    names = tuple(outputs)
    if isinstance(outputs, str) or not all(isinstance(name, str) for name in names):
        example = outputs if isinstance(outputs, str) else "logits"
        raise ValueError(f"outputs takes a list of names, such as {[example]!r:.80}; got {outputs!r:.80}.")
    return names
