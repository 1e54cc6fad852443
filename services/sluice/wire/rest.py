"""TensorFlow Serving's predict JSON, to tensors and back: row and column format, bytes as `{"b64": …}`.

It does not know HTTP, models or batches; the gateway and the model server both use it.
"""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from sluice.policy.contract import BFLOAT16, Tensor, numpy_dtype
from sluice.policy.errors import (
    BadRequest,
    DtypeMismatch,
    EmptyInput,
    MissingInput,
    ShapeMismatch,
    SluiceError,
    UnknownInput,
    UnsupportedByModel,
)
from sluice.policy.sequences import check_rows, text_values
from sluice.policy.tensors import missing_inputs, read_tensor, uneven
from sluice.wire.content import check_plain
from sluice.wire.exact_json import Members, may_repeat, read_as_tf_serving, read_json
from sluice.wire.shown import as_json

Array = NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"
_BOUNDARY = b"--"  # begins a body in parts, and no JSON
_BYTES_SUFFIX = "_bytes"
_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}
# TensorFlow Serving has no JSON form for these, nor for dtypes without a name here.
WITHOUT_JSON = frozenset({"float16", "bfloat16", "uint16", "complex64", "complex128", "unknown"})
_BASE64 = re.compile(r"((?:[\w+/]{4})*)(?:([\w+/]{2})(?:[=.]{2})?|([\w+/]{3})[=.]?)?".replace(r"\w", "A-Za-z0-9"))
_NAME_END = "\0"  # of an input in rows; TensorFlow Serving does not look at what follows
_SPACE = dict.fromkeys(map(ord, " \t\n\v\f\r"))
_WRAPPING = frozenset({"int8", "int16", "uint8"})  # read as int32 and then cut to their width


class NoJsonForm(DtypeMismatch):
    """Of a dtype that JSON cannot write, in columns: TensorFlow Serving's status."""

    http_status = 501


class PredictBody(NamedTuple):
    """A predict request as written: `value` holds the rows (`row_format`) or the columns, or what is wrong with them.

    `has_words` says that `true` or `false` stands somewhere in it, which numpy would take for numbers.
    """

    signature_name: str
    row_format: bool
    value: Any
    has_words: bool = True

    def tensors(self, inputs: Mapping[str, Tensor], *, any_shape: bool = False) -> dict[str, Array]:
        """The arrays of a signature's `inputs`, name → `[rows, ...]`; with `any_shape` whatever shape they have.

        Raises:
            MissingInput, UnknownInput, ShapeMismatch, DtypeMismatch, EmptyInput.
        """
        columns = self._named_columns(inputs)
        return {name: self._read(columns[name], tensor, any_shape=any_shape) for name, tensor in inputs.items()}

    def rows(self, inputs: Mapping[str, Tensor], limit: int) -> dict[str, list[Array]]:
        """The rows of a signature's `inputs`, which may differ in length: name → each row's array.

        Raises:
            BatchTooLarge: more rows than `limit`; besides all that `tensors` raises, with the row first.
        """
        if self.row_format and isinstance(self.value, list):
            check_rows(len(self.value), limit)
        columns = self._named_columns(inputs)
        for column in columns.values():
            check_rows(len(column) if isinstance(column, list) else 0, limit)
        return {name: self._read_rows(columns[name], tensor) for name, tensor in inputs.items()}

    def columns_among(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `inputs` that came by name, each in a column of its own."""
        named = self.value if isinstance(self.value, dict) else ()
        return {name: tensor for name, tensor in inputs.items() if name in named}

    def _named_columns(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """By name; beside columns there may be others, which are ignored as in TensorFlow Serving."""
        if isinstance(self.value, SluiceError):
            raise self.value
        columns = self._columns(inputs) if self.row_format else _named(self.value, inputs)
        try:
            check_names(columns if self.row_format else columns.keys() & inputs.keys(), inputs)
        except UnknownInput:
            columns = {name.partition(_NAME_END)[0]: column for name, column in columns.items()}
            check_names(columns, inputs)
        return columns

    def _read_rows(self, column: Any, tensor: Tensor) -> list[Array]:
        if not isinstance(column, list):
            raise ShapeMismatch(f"Input {tensor.name!r} is a list of rows, each {tensor.row()}; got {as_json(column)}.")
        row, found = tensor.row(), list[Array]()
        for number, value in enumerate(column):
            written = text_values(value, tensor) if tensor.text and isinstance(value, str) else value
            try:
                found.append(self._read(written, row, any_shape=False, item="part"))
            except BadRequest as error:
                hint = " A row may be a string, too." if tensor.text else ""
                raise type(error)(f"Row {number}: {error.message}{hint}", **{**error.details, "row": number}) from None
        return found

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

    def _read(self, value: Any, tensor: Tensor, *, any_shape: bool, item: str = "row") -> Array:
        if tensor.dtype in WITHOUT_JSON:
            self._check_empty(value, tensor)
        array = _array(value, tensor, item, has_words=self.has_words)
        if tensor.dtype in _WRAPPING:
            wide = read_tensor(array, tensor, finite=False, any_shape=any_shape, read_as="int32")
            return wide.astype(numpy_dtype(tensor.dtype))
        return read_tensor(array, tensor, finite=False, any_shape=any_shape)

    def _check_empty(self, value: Any, tensor: Tensor) -> None:
        """Raises: DtypeMismatch: there is a value, which must not be where JSON has no form for the dtype."""
        while isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, list):
            kind = DtypeMismatch if self.row_format or isinstance(value, dict) else NoJsonForm
            raise kind(f"Input {tensor.name!r} takes {tensor}, which JSON requests cannot carry: use gRPC.")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text, in which `NaN` and `Infinity` are numbers.

    Raises:
        BadRequest: it is not JSON; the sentence says where.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _reread(read_json, body, error)


def parse_as_tf_serving(body: bytes) -> dict[str, Any]:
    """The object that a JSON text begins with, as TensorFlow Serving reads it: what follows is ignored, for example.

    Raises:
        BadRequest: it begins with none; the sentence says where.
    """
    try:
        fields = orjson.loads(body)
        if isinstance(fields, dict) and may_repeat(body, fields):
            fields = read_as_tf_serving(body)
    except (ValueError, RecursionError) as error:
        fields = _reread(read_as_tf_serving, body, error)
    if not isinstance(fields, dict):
        raise BadRequest(f"The body is a JSON object; got {as_json(fields)}.")
    return fields


def _reread(read: Callable[[bytes], Any], body: bytes, error: Exception) -> Any:
    check_plain(body)
    try:
        return read(body)
    except ValueError:
        if body.startswith(_BOUNDARY):
            raise BadRequest("The body is JSON; this looks like multipart/form-data, which curl -F sends.") from None
        raise BadRequest(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise BadRequest("The body's JSON is nested too deeply; send lists as deep as the input has axes.") from None


def parse_predict(body: bytes) -> PredictBody:
    """The fields of a predict request. As in TensorFlow Serving, other fields are ignored.

    Raises:
        BadRequest: what is wrong with them; whether there are rows or columns is seen when they are read.
    """
    fields = parse_as_tf_serving(body)
    name = fields.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise BadRequest(f'"signature_name" is a name; got {as_json(name)}.')
    given = [each for each in ("instances", "inputs") if each in fields]
    value = fields[given[0]] if len(given) == 1 else _ambiguous(given)
    return PredictBody(name or DEFAULT_SIGNATURE, given == ["instances"], value, has_words(body))


def _ambiguous(given: Sequence[str]) -> MissingInput:
    has = "both" if given else "neither"
    return MissingInput(f'The body has either "instances" (rows) or "inputs" (columns); it has {has}.')


def encode_predict(outputs: Mapping[str, Array | list[Array]], *, row_format: bool) -> bytes:
    """A predict answer's body; one output stands without its name, and bytes are `{"b64": …}` if the name says so.

    Outputs are arrays, or a list of arrays where rows differ in shape.

    Raises:
        ShapeMismatch: rows are asked for, and the outputs do not agree on how many there are.
        UnsupportedByModel: an output is complex.
    """
    if not row_format:
        columns = {name: _writable(name, array) for name, array in outputs.items()}
        return write_json({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    counts = {(len(array),) if isinstance(array, list) else array.shape[:1] for array in outputs.values()}
    if len(counts) != 1 or () in counts:
        raise ShapeMismatch('The outputs have no common number of rows; ask with "inputs" instead of "instances".')
    if len(outputs) == 1:
        return write_json({"predictions": next(_writable(name, array) for name, array in outputs.items())})
    rows = zip(*(_rows(name, array) for name, array in outputs.items()), strict=True)
    return write_json({"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]})


def encode_part(row: int, start: int, outputs: Mapping[str, Array]) -> bytes:
    """A part of a row's answer, `{"row": …, "start": …, "outputs": {name: values}}`.

    Raises:
        UnsupportedByModel: an output is complex.
    """
    values = {name: _writable(name, array) for name, array in outputs.items()}
    return write_json({"row": row, "start": start, "outputs": values})


def check_names(given: Collection[str], inputs: Mapping[str, Tensor]) -> None:
    """Raises: UnknownInput, MissingInput."""
    if unknown := [name for name in given if name not in inputs]:
        listed = ", ".join(map(repr, inputs))
        raise UnknownInput(f"There is no input {', '.join(map(repr, unknown))}; the signature has {listed}.")
    if missing := {name: tensor for name, tensor in inputs.items() if name not in given}:
        raise missing_inputs(missing)


def _is_object(value: Any) -> bool:
    """An object of named inputs; `{"b64": text}` alone is a value."""
    return isinstance(value, dict) and not is_base64(value)


def _named(value: Any, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """A bare value belongs to the only input."""
    if _is_object(value):
        named: Mapping[str, Any] = value
        return named
    if len(inputs) != 1:
        raise MissingInput(f"The signature has {len(inputs)} inputs, {', '.join(map(repr, inputs))}: name them.")
    return dict.fromkeys(inputs, value)


def has_words(body: bytes, expected: int = 0) -> bool:
    """Whether `true` or `false` stand in a text more often than expected.

    A single byte, which most texts of numbers have not, is found faster than a word.
    """
    found = (body.count(b"true") if b"u" in body else 0) + (body.count(b"false") if b"l" in body else 0)
    return found > expected


def mixes_words(value: Any) -> bool:
    """Whether true or false stands beside numbers in nested lists, where numpy would take it for a number."""
    if isinstance(value, dict):
        return any(map(mixes_words, value.values()))
    try:
        kinds = set(map(type, np.array(value, object).ravel()))
    except ValueError:  # nested too deeply, which is somebody else's finding
        return False
    return bool in kinds and not kinds.isdisjoint((int, float))


def _array(value: Any, tensor: Tensor, item: str, *, has_words: bool) -> Array:
    """A list of items, rows or what a row is made of, as numpy reads it; numbers are not mixed with words.

    Raises:
        ShapeMismatch: lists of different lengths, or nested too deeply.
        DtypeMismatch: words among numbers.
    """
    try:
        if tensor.dtype == "string":
            return _texts_of(value, tensor, item)
        array = np.asarray(value)
    except (ValueError, RecursionError):
        raise uneven(value, tensor, item) from None
    if has_words and array.dtype.kind in "iuf" and mixes_words(value):
        raise DtypeMismatch(f"Input {tensor.name!r} takes {tensor}; numbers mixed with true or false came.")
    return _exact(value, array) if tensor.dtype == "uint64" and array.dtype.kind == "f" else array


def _texts_of(value: Any, tensor: Tensor, item: str) -> Array:
    array = np.array(_unwrapped(value), object)
    if list in set(map(type, array.ravel())):  # numpy takes lists of different lengths for objects
        raise uneven(value, tensor, item)
    return array


def _exact(value: Any, array: Array) -> Array:
    """As numpy takes whole numbers on both sides of 2**63 for floats, make them whole again."""
    exact = np.array(value, object)
    whole = all(type(each) is int and each >= 0 for each in exact.ravel())
    return exact.astype(np.uint64) if whole else array


def _unwrapped(value: Any) -> Any:
    """The same lists with every `{"b64": …}` as bytes."""
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    return from_base64(value["b64"]) if isinstance(value, dict) and is_base64(value) else value


def is_base64(value: Mapping[str, Any]) -> bool:
    """Whether an object is `{"b64": text}`."""
    return value.keys() == {"b64"} and isinstance(value["b64"], str) and not isinstance(value, Members)


def from_base64(text: str) -> bytes:
    """The bytes that `{"b64": text}` stands for; as in TensorFlow Serving with space anywhere, and padding or none.

    Raises:
        BadRequest: it is not base64.
    """
    try:
        if len(text) % 4 == 0 and not text.endswith("==="):  # Python ignores padding that is too much
            return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    found = _BASE64.fullmatch(text.translate(_SPACE))
    if found is None:
        raise BadRequest(f'"b64" holds base64 text in the standard alphabet; got {text!r:.80}.')
    data = "".join(filter(None, found.groups()))
    return binascii.a2b_base64(data + "=" * (-len(data) % 4))


def _writable(name: str, array: Array | list[Array]) -> Any:
    """What `write_json` can write for an array, or for several."""
    if isinstance(array, list):
        return [_writable(name, each) for each in array]
    if array.dtype.hasobject:
        return _texts(array.tolist(), as_base64=name.endswith(_BYTES_SUFFIX))
    if array.dtype.kind == "c":
        raise UnsupportedByModel(f"Output {name!r} is complex, which JSON answers cannot carry: use gRPC.")
    if array.dtype == BFLOAT16:
        array = array.astype(np.float32)
    return encode_floats(np.ascontiguousarray(array) if array.ndim else array[()])


def encode_floats(value: Any) -> Any:
    """What `write_json` can write for an array or a scalar; floats that are not finite as TensorFlow Serving does."""
    return value if _all_finite(value) else _with_tokens(value)


def _rows(name: str, array: Array | list[Array]) -> Iterable[Any]:
    """What `write_json` can write for each row of an array."""
    if isinstance(array, list) or array.dtype.hasobject or _all_finite(array):
        rows: Iterable[Any] = _writable(name, array)
        return rows
    return (_writable(name, row) for row in array)


def _with_tokens(value: Any) -> orjson.Fragment:
    """Floats of which some are not finite: orjson writes null for these, and for nothing else here."""
    floats = np.asarray(value)
    tokens = iter([_TOKENS[str(each)] for each in floats[~np.isfinite(floats)]])
    return orjson.Fragment(re.sub(b"null", lambda _: next(tokens), write_json(value)))


def _texts(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_texts(each, as_base64=as_base64) for each in value]
    return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode(errors="replace")


def _all_finite(array: Array) -> bool:
    return array.dtype.kind not in "fV" or bool(np.isfinite(array).all())


def write_json(value: Any) -> bytes:
    """A JSON text; arrays may stand in it."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
