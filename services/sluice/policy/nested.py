"""Nested lists that are no array: says where they differ, by row and in lengths.

It does not know JSON or tensors.
"""

from collections.abc import Sequence
from typing import Any

_DEPTH_LIMIT = 64  # axes of a numpy array


def unevenness(value: Any, item: str = "row") -> str:
    """Where lists of rows, or of another `item`, differ from each other, as a part of a sentence; empty if they do not.

    The first value of each list says what the others are expected to be.
    """
    lengths = _lengths(value)
    if len(lengths) > _DEPTH_LIMIT:
        return f"lists are nested more than {_DEPTH_LIMIT} deep"
    return _first_difference(value, lengths, (), item)


def _lengths(value: Any) -> Sequence[int]:
    lengths = []
    while isinstance(value, list):
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths


def _first_difference(value: Any, lengths: Sequence[int], at: tuple[int, ...], item: str) -> str:
    level = len(at)
    came = len(value) if isinstance(value, list) else None
    expected = lengths[level] if level < len(lengths) else None
    if came != expected:
        return f"{item} {_place(at)} {_has(came)} where {item} {_place((0,) * level)} {_has(expected)}"
    if came is None or (level + 1 == len(lengths) and list not in set(map(type, value))):
        return ""
    return next(filter(None, (_first_difference(each, lengths, (*at, i), item) for i, each in enumerate(value))), "")


def _has(length: int | None) -> str:
    return "is a single value" if length is None else f"has {length} value{'' if length == 1 else 's'}"


def _place(at: tuple[int, ...]) -> str:
    return str(at[0]) + "".join(f"[{i}]" for i in at[1:])
