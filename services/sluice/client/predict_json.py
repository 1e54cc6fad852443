"""Arrays to and from TensorFlow Serving's predict JSON, in column format. It does not know HTTP."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from sluice.client.sequences import column_of, uneven
from sluice.client.signatures import fitted
from sluice.client.values import Array, PredictCall, input_word
from sluice.policy.contract import Tensor
from sluice.policy.errors import BackendError, BadRequest, DtypeMismatch
from sluice.wire.rest import encode_floats, from_base64, write_json


def predict_body(call: PredictCall) -> bytes:
    """The body of a call; strings are `{"b64": …}`, so that any bytes arrive as they are.

    Raises:
        DtypeMismatch: JSON has no form for an input's dtype.
    """
    inputs = {
        name: [writable(name, row) for row in column] if isinstance(column, list) else writable(name, column)
        for name, column in call.inputs.items()
    }
    return write_json({"signature_name": call.signature.name, "inputs": inputs})


def writable(name: str, array: Array) -> Any:
    """What `write_json` can write for an input; objects must be `bytes`.

    Raises:
        DtypeMismatch: JSON has no form for its dtype.
    """
    if array.dtype.hasobject:
        return _encoded(array.tolist())
    if array.dtype.kind in "cV":
        raise DtypeMismatch(f"{input_word(name)} takes {array.dtype.name}, which JSON cannot carry: use a grpc:// URL.")
    return encode_floats(np.ascontiguousarray(array) if array.ndim else array[()])


def read_outputs(body: Mapping[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """The outputs of an answer, in the dtypes of the signature's `outputs`; text is UTF-8 `bytes`.

    Where rows differ in length, an output is an array of objects, each a row.

    Raises:
        BackendError: the answer has other outputs than the signature.
    """
    answer = body["outputs"]
    named = answer if len(outputs) > 1 else dict.fromkeys(outputs, answer)
    if not isinstance(named, dict) or named.keys() != outputs.keys():
        raise BackendError(f"The answer has not the outputs of the signature, {', '.join(map(repr, outputs))}.")
    return {name: _read(named[name], tensor) for name, tensor in outputs.items()}


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    return {"b64": base64.b64encode(value).decode()}


def _read(value: Any, tensor: Tensor) -> Array:
    try:
        column = column_of(_decoded(value) if tensor.dtype == "string" else value)
        if isinstance(column, list):
            return uneven([fitted(row, tensor, any_shape=True) for row in column])
        return fitted(column, tensor, any_shape=True)
    except (BadRequest, ValueError) as error:
        raise BackendError(f"Output {tensor.name!r} of the answer is not {tensor.dtype}: {error}") from None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return from_base64(value["b64"]) if isinstance(value, dict) else value
