"""The fields of steps over HTTP and WebSockets, from a body in JSON, or what is wrong with them.

It does not know headers, models or sessions.
"""

from collections.abc import Iterable
from typing import Any

from sluice.policy.errors import BadRequest, DtypeMismatch, MissingInput
from sluice.wire.rest import mixes_words, parse_json
from sluice.wire.shown import as_json

_STEP_FIELDS = {"inputs", "step", "outputs"}
_MANY_FIELDS = {"sessions", "inputs", "steps", "outputs"}


def read_step(body: bytes) -> tuple[Any, int | None, list[str] | None]:
    """The fields of a step or scan: inputs, number, names of the outputs wanted.

    Raises:
        BadRequest, MissingInput, DtypeMismatch: what is wrong with the body.
    """
    fields = _fields(body, _STEP_FIELDS, "A step has inputs, step and outputs.")
    return fields["inputs"], _number(fields.get("step")), _wanted(fields.get("outputs"))


def read_many(body: bytes) -> tuple[list[str], Any, list[int] | None, list[str] | None]:
    """The fields of a step of many sessions: ids, inputs, numbers by session (-1: none), names of the outputs wanted.

    Raises:
        BadRequest, MissingInput, DtypeMismatch: what is wrong with the body.
    """
    fields = _fields(body, _MANY_FIELDS, "A step of many sessions has sessions, inputs, steps and outputs.")
    ids = fields.get("sessions")
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise BadRequest(f'"sessions" is a list of session ids; got {as_json(ids)}.')
    steps = fields.get("steps")
    if steps is None:
        return ids, fields["inputs"], None, _wanted(fields.get("outputs"))
    if not isinstance(steps, list):
        raise BadRequest(f'"steps" is a list with a whole number or null for each session; got {as_json(steps)}.')
    numbers = [-1 if number is None else number for number in map(_number, steps)]
    return ids, fields["inputs"], numbers, _wanted(fields.get("outputs"))


def _fields(body: bytes, known: set[str], hint: str) -> dict[str, Any]:
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest('The body must be an object such as {"inputs": ...}.')
    if unknown := fields.keys() - known:
        raise BadRequest(f"Unknown fields: {_listed(unknown)}. {hint}")
    if "inputs" not in fields:
        raise MissingInput('The body must have "inputs": a row for each input, or the row itself.')
    if (b"true" in body or b"false" in body) and mixes_words(fields["inputs"]):
        raise DtypeMismatch("The inputs mix true or false with numbers; send one or the other.")
    return fields


def _number(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BadRequest(f'"step" is the number of time steps done so far, a whole number from 0; got {as_json(value)}.')


def _wanted(value: Any) -> list[str] | None:
    if value is None or (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        return value
    raise BadRequest(f'"outputs" is a list of output names; got {as_json(value)}.')


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:80]) for name in sorted(names))
