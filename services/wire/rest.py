"""TensorFlow Serving's predict JSON, to tensors and back: row and column format, bytes as `{"b64": …}`.

It does not know HTTP, models or batches; the gateway and the model server both use it.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.policy.contract import Tensor
from services.policy.errors import BadRequest, EmptyInput, MissingInput, ShapeMismatch, UnknownInput
from services.policy.tensors import read_tensor

Array = NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"
_FIELDS = {"signature_name", "instances", "inputs"}
_BYTES_SUFFIX = "_bytes"


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A predict request as written: `value` holds the rows (`row_format`) or the columns."""

    signature_name: str
    row_format: bool
    value: Any

    def tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
        """The arrays of a signature's `inputs`, name → `[rows, ...]`.

        Raises:
            MissingInput, UnknownInput, ShapeMismatch, DtypeMismatch, EmptyInput.
        """
        columns = self._columns(inputs) if self.row_format else _named(self.value, inputs)
        check_names(columns, inputs)
        return {
            name: read_tensor(_decoded(columns[name], tensor), tensor, finite=False) for name, tensor in inputs.items()
        }

    def _columns(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
        rows = self.value
        if not isinstance(rows, list):
            raise BadRequest('"instances" is a list of rows.')
        if not rows:
            raise EmptyInput('"instances" is empty: send one row or more.')
        if not _is_object(rows[0]):
            return _named(rows, inputs)
        if not all(_is_object(row) and row.keys() == rows[0].keys() for row in rows):
            raise BadRequest('All "instances" name the same inputs; these differ from row to row.')
        return {name: [row[name] for row in rows] for name in rows[0]}


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; `NaN` and `Infinity` are read, as TensorFlow Serving does.

    Raises:
        BadRequest: it is not JSON; the sentence says where.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _parse_lenient(body, error)


def _parse_lenient(body: bytes, strict: orjson.JSONDecodeError) -> Any:
    """What orjson refuses but other parsers read: non-finite numbers."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(f"The body is not JSON: {strict}.") from None


def parse_predict(body: bytes) -> PredictBody:
    """The fields of a predict request.

    Raises:
        BadRequest, MissingInput: what is wrong with them.
    """
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest('The body is an object with "instances" (rows) or "inputs" (columns).')
    if unknown := sorted(fields.keys() - _FIELDS):
        raise BadRequest(f"Unknown fields: {', '.join(repr(name[:80]) for name in unknown)}.")
    given = [name for name in ("instances", "inputs") if name in fields]
    if len(given) != 1:
        raise MissingInput(
            f'The body has either "instances" (rows) or "inputs" (columns); it has {given or "neither"}.'
        )
    name = fields.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise BadRequest(f'"signature_name" is a name; got {name!r:.80}.')
    return PredictBody(name or DEFAULT_SIGNATURE, given == ["instances"], fields[given[0]])


def encode_predict(outputs: Mapping[str, Array], *, row_format: bool) -> bytes:
    """A predict answer's body; one output stands without its name, and bytes are `{"b64": …}` if the name says so.

    Raises:
        ShapeMismatch: rows are asked for, and the outputs do not agree on how many there are.
    """
    values = {name: _writable(name, array) for name, array in outputs.items()}
    if not row_format:
        return _dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))})
    counts = {name: array.shape[:1] for name, array in outputs.items()}
    if len(set(counts.values())) != 1 or () in counts.values():
        raise ShapeMismatch('The outputs have no common number of rows; ask with "inputs" instead of "instances".')
    if len(values) == 1:
        return _dumps({"predictions": next(iter(values.values()))})
    rows = zip(*values.values(), strict=True)
    return _dumps({"predictions": [dict(zip(values, row, strict=True)) for row in rows]})


def check_names(given: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> None:
    """Raises: UnknownInput, MissingInput."""
    listed = ", ".join(map(repr, inputs))
    if unknown := [name for name in given if name not in inputs]:
        raise UnknownInput(f"There is no input {', '.join(map(repr, unknown))}; the signature has {listed}.")
    if missing := [name for name in inputs if name not in given]:
        raise MissingInput(f"The inputs {', '.join(map(repr, missing))} are missing; the signature has {listed}.")


def _is_object(value: Any) -> bool:
    """An object of named inputs; `{"b64": …}` alone is a value."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def _named(value: Any, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """A bare value belongs to the only input."""
    if _is_object(value):
        named: Mapping[str, Any] = value
        return named
    if len(inputs) != 1:
        raise MissingInput(f"The signature has {len(inputs)} inputs, {', '.join(map(repr, inputs))}: name them.")
    return dict.fromkeys(inputs, value)


def _decoded(value: Any, tensor: Tensor) -> Any:
    return _unwrapped(value) if tensor.dtype == "string" else value


def _unwrapped(value: Any) -> Any:
    """The same lists with every `{"b64": …}` as bytes."""
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    return _from_base64(value["b64"]) if isinstance(value, dict) and value.keys() == {"b64"} else value


def _from_base64(text: Any) -> bytes:
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadRequest(f'"b64" holds base64 text in the standard alphabet; got {text!r:.80}.') from None


def _writable(name: str, array: Array) -> Any:
    if array.dtype.hasobject:
        return _texts(array.tolist(), as_base64=name.endswith(_BYTES_SUFFIX))
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        # orjson would write null; by way of text a float32 keeps its shortest form.
        return array.astype(str).astype(np.float64).tolist()
    return array if array.ndim else array[()]


def _texts(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_texts(each, as_base64=as_base64) for each in value]
    return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode(errors="replace")


def _dumps(value: dict[str, Any]) -> bytes:
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return text if not _holds_non_finite(value) else json.dumps(value, default=_plain).encode()


def _holds_non_finite(value: Any) -> bool:
    """Whether `_writable` made lists of floats, which it does only where one of them is not finite."""
    if isinstance(value, dict):
        return any(map(_holds_non_finite, value.values()))
    if isinstance(value, list):
        return any(map(_holds_non_finite, value))
    return isinstance(value, float) and not np.isfinite(value)


def _plain(value: Any) -> Any:
    return value.tolist()
