"""Reads single fields of a contract's JSON document, or says which one is wrong. It does not know what they are for."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from sluice.policy.contract import Kind, Signature


class ContractError(ValueError):
    """A contract that cannot be read: the sentence names the field, what was expected and what came."""


def object_of(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: expected an object; got {type(value).__name__}")
    return value


def array_of(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ContractError(f"{where}: expected an array; got {type(value).__name__}")
    return value


def text_of(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise ContractError(f"{where}.{key}: expected a name; got {value!r}")
    return value


def whole_of(value: Any, where: str, least: int, most: int) -> int:
    if type(value) is int and least <= value <= most:
        return value
    raise ContractError(f"{where}: expected a whole number from {least} to {most}; got {value!r:.80}")


def signature_of(
    fields: Mapping[str, Any], kind: Kind, where: str, signatures: Mapping[str, Signature], key: str = ""
) -> Signature:
    """The signature that `fields` name under `key`, or under their kind."""
    name = text_of(fields, key or kind, where)
    if name not in signatures or signatures[name].kind != kind:
        raise ContractError(f"{where}.{key or kind}: expected a signature of kind {kind}; got {name!r}")
    return signatures[name]


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a dtype has this value, or one near it."""
    if dtype.kind in "iu":
        return isinstance(value, int) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    if dtype.kind in "fVc":
        return abs(value) <= float(ml_dtypes.finfo(dtype).max)
    return dtype.kind == "b" and value in (0, 1)
