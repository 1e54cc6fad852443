"""Arrays to and from the JSON of steps. It does not know HTTP; dtypes of outputs are the contract's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from sluice.client.values import BARE, Answer, Array, Call, ManyCall, input_word
from sluice.policy.contract import numpy_dtype
from sluice.policy.errors import InputNotFinite


def dumps(body: Any) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def step_body(call: Call) -> bytes:
    """The body of a step or scan."""
    return dumps({"inputs": write_inputs(call.inputs), **_optional(step=call.step, outputs=list(call.outputs) or None)})


def many_body(call: ManyCall) -> bytes:
    numbers = None if all(step is None for step in call.steps) else call.steps
    optional = _optional(steps=numbers, outputs=list(call.outputs) or None)
    return dumps({"sessions": call.sessions, "inputs": write_inputs(call.inputs), **optional})


def write_inputs(inputs: Mapping[str, Array]) -> Any:
    """What JSON carries: an object by name, or the bare value.

    Raises:
        InputNotFinite: JSON has no NaN and no infinity, and a session takes none.
    """
    values = {name: _writable(name, array) for name, array in inputs.items()}
    return values[BARE] if values.keys() == {BARE} else values


def read_answer(body: Mapping[str, Any], dtypes: Mapping[str, str], *, replayed: bool = False) -> Answer:
    """The answer of a step or scan."""
    outputs = {name: read_array(value, dtypes[name]) for name, value in body["outputs"].items()}
    return Answer(outputs, body["step"], replayed)


def read_array(value: Any, dtype: str) -> Array:
    """A value as an array of the dtype that the contract names; null is NaN, and text is UTF-8 `bytes`."""
    if dtype == "string":
        texts = np.array(value, object)
        encoded = np.empty(texts.size, object)
        encoded[:] = [text.encode() for text in texts.ravel()]
        return encoded.reshape(texts.shape)
    if dtype == "bfloat16":
        return np.array(value, np.float32).astype(numpy_dtype(dtype))
    return np.array(value, numpy_dtype(dtype))


def _writable(name: str, array: Array) -> Any:
    """What `dumps` can write for an array."""
    if array.dtype.kind in "OSU":
        return _texts(array.tolist())
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputNotFinite(f"{input_word(name)} takes finite numbers; NaN or infinity was given.")
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def _optional(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
