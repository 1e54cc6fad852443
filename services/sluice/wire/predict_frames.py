"""TensorFlow Serving's Predict messages: large tensors are read where they lie and written with one copy.

Reading by hand takes what clients and servers usually send, and leaves everything else to the generated classes, as it
does small messages, which these read faster. It knows nothing of batches, models or transports.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from sluice.wire.messages.tf.v1 import tensorflow_pb2 as tf
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import NUMPY_DTYPES, dtype_number, read_tensor, write_tensor

Array = NDArray[Any]

_LARGE = 128 * 1024  # bytes from which on reading by hand is faster
_VARINT, _BYTES = 0, 2  # protobuf's wire types; a tag is a field's number and its wire type
_VARINT_BITS = 63  # negative numbers take more, and are none that is usual here


def _tag(number: int, wire_type: int = _BYTES) -> int:
    return number << 3 | wire_type


_SPEC, _INPUTS, _OUTPUT_FILTER = _tag(1), _tag(2), _tag(3)  # of PredictRequest
_OUTPUTS, _RESPONSE_SPEC = _tag(1), _tag(2)  # of PredictResponse
_NAME, _VERSION, _SIGNATURE, _LABEL = _tag(1), _tag(2), _tag(3), _tag(4)  # of ModelSpec
_NUMBER = _tag(1, _VARINT)  # of its version
_KEY, _VALUE = _tag(1), _tag(2)  # of an entry of a map
_DTYPE, _SHAPE, _CONTENT = _tag(1, _VARINT), _tag(2), _tag(4)  # of TensorProto
_LISTS = {_tag(5): np.dtype(np.float32), _tag(6): np.dtype(np.float64)}  # its lists of numbers of fixed width
_DIM, _SIZE = _tag(2), _tag(1, _VARINT)  # of TensorShapeProto


class PredictRequest(NamedTuple):
    """What a `PredictRequest` says. Without `version` and `label` the newest version is meant.

    `inputs` are of any shape, read-only where they share the message's bytes. `outputs` are asked for; none: all.
    """

    model: str
    signature: str
    inputs: Mapping[str, Array]
    version: int | None = None
    label: str | None = None
    outputs: tuple[str, ...] = ()


def read_request(message: bytes) -> PredictRequest:
    """The inverse of `write_request`, and of what any client writes.

    Raises:
        ValueError: it is no such message, or holds a tensor that `read_tensor` refuses.
    """
    if len(message) >= _LARGE:
        try:
            return _request(memoryview(message))
        except _Unusual:
            pass
    request = _parsed(tfs.PredictRequest, message)
    spec, inputs = request.model_spec, {name: read_tensor(tensor) for name, tensor in request.inputs.items()}
    return PredictRequest(spec.name, spec.signature_name, inputs, *_chosen(spec), tuple(request.output_filter))


class PredictShapes(NamedTuple):
    """What a `PredictRequest` asks of which version, and its inputs' shapes; `version` and `label` as there."""

    model: str
    signature: str
    version: int | None
    label: str | None
    shapes: Mapping[str, tuple[int, ...]]


def read_shapes(message: bytes) -> PredictShapes:
    """As `read_request`, of tensors that `read_tensor` may refuse; without those of which no shape is told.

    Raises:
        ValueError: it is no such message.
    """
    request = _parsed(tfs.PredictRequest, message)
    shapes = {
        name: tuple(dim.size for dim in tensor.tensor_shape.dim)
        for name, tensor in request.inputs.items()
        if not tensor.tensor_shape.unknown_rank
    }
    spec = request.model_spec
    return PredictShapes(spec.name, spec.signature_name, *_chosen(spec), shapes)


def read_outputs(message: bytes) -> dict[str, Array]:
    """The outputs of a `PredictResponse`, name → array; raises as `read_request`."""
    if len(message) >= _LARGE:
        try:
            return _outputs(memoryview(message))
        except _Unusual:
            pass
    response = _parsed(tfs.PredictResponse, message)
    return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}


def write_request(request: PredictRequest) -> bytes:
    """A `PredictRequest`; inputs of any shape, objects must be `bytes`."""
    spec = _spec(request.model, request.version, request.label, request.signature)
    parts: list[bytes | memoryview] = [_head(_SPEC, len(spec)), spec]
    for name, array in request.inputs.items():
        parts += _entry(_INPUTS, name, array)
    for name in request.outputs:
        parts += _text(_OUTPUT_FILTER, name)
    return b"".join(parts)


def write_response(model: str, version: int, signature: str, outputs: Mapping[str, Array]) -> bytes:
    """A `PredictResponse`; outputs as the inputs of `write_request`."""
    spec = _spec(model, version, None, signature)
    parts: list[bytes | memoryview] = []
    for name, array in outputs.items():
        parts += _entry(_OUTPUTS, name, array)
    return b"".join([*parts, _head(_RESPONSE_SPEC, len(spec)), spec])


class _Unusual(Exception):
    """Something that is left to the generated classes, whether it is wrong or only rare."""


def _parsed(kind: type[Any], message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise ValueError(f"no {kind.DESCRIPTOR.name}: {error}") from None


def _chosen(spec: tfs.ModelSpec) -> tuple[int | None, str | None]:
    """The version or the label that a message names."""
    chosen = spec.WhichOneof("version_choice")
    return (
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
    )


def _request(message: memoryview) -> PredictRequest:
    spec: dict[int, Any] | None = None
    inputs: dict[str, Array] = {}
    outputs: list[str] = []
    for tag, value in _fields(message):
        if tag == _SPEC and spec is None:
            spec = _once(value, _NAME, _VERSION, _SIGNATURE, _LABEL)
        elif tag == _INPUTS:
            _add_tensor(inputs, value)
        elif tag == _OUTPUT_FILTER:
            outputs.append(_read_text(value))
        else:
            raise _Unusual
    if spec is None or spec.keys() >= {_VERSION, _LABEL}:
        raise _Unusual
    texts = {tag: _read_text(spec[tag]) for tag in (_NAME, _SIGNATURE, _LABEL) if tag in spec}
    version = _once(spec[_VERSION], _NUMBER).get(_NUMBER, 0) if _VERSION in spec else None
    model, signature = texts.get(_NAME, ""), texts.get(_SIGNATURE, "")
    return PredictRequest(model, signature, inputs, version, texts.get(_LABEL), tuple(outputs))


def _outputs(message: memoryview) -> dict[str, Array]:
    outputs: dict[str, Array] = {}
    for tag, value in _fields(message):
        if tag == _OUTPUTS:
            _add_tensor(outputs, value)
        elif tag != _RESPONSE_SPEC:
            raise _Unusual
    return outputs


def _add_tensor(tensors: dict[str, Array], entry: memoryview) -> None:
    found = _once(entry, _KEY, _VALUE)
    if found.keys() != {_KEY, _VALUE} or (name := _read_text(found[_KEY])) in tensors:
        raise _Unusual
    tensors[name] = _tensor(found[_VALUE])


def _tensor(message: memoryview) -> Array:
    """A tensor whose values lie in the message as they lie in an array."""
    found = _once(message, _DTYPE, _SHAPE, _CONTENT, *_LISTS)
    dtype = NUMPY_DTYPES.get(found.get(_DTYPE, 0))
    if dtype is None or dtype.hasobject:
        raise _Unusual
    shape = [_once(dim, _SIZE).get(_SIZE, 0) if tag == _DIM else -1 for tag, dim in _fields(found.get(_SHAPE, b""))]
    values = found.get(_CONTENT) or next((found[tag] for tag in _LISTS if tag in found and _LISTS[tag] == dtype), b"")
    if not values or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise _Unusual
    return np.frombuffer(values, dtype).reshape(shape)


def _once(message: memoryview, *tags: int) -> dict[int, Any]:
    """The fields of a message, by tag: some of `tags`, none of them twice."""
    found: dict[int, Any] = {}
    for tag, value in _fields(message):
        if tag in found or tag not in tags:
            raise _Unusual
        found[tag] = value
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Each field's tag, which is of one byte, and its number or bytes."""
    at, end = 0, len(message)
    while at < end:
        tag = message[at]
        value, at = _read_varint(message, at + 1)
        if tag & 0x87 == _BYTES:
            start, at = at, at + value
            if at > end:
                raise _Unusual
            yield tag, message[start:at]
        elif tag & 0x87 == _VARINT:
            yield tag, value
        else:
            raise _Unusual


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at == len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Unusual


def _read_text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise _Unusual from None


@lru_cache
def _spec(model: str, version: int | None, label: str | None, signature: str) -> bytes:
    spec = tfs.ModelSpec(name=model, signature_name=signature)
    if label is not None:
        spec.version_label = label
    if version is not None:
        spec.version.value = version
    return _serialized(spec)


def _entry(tag: int, name: str, array: Array) -> list[bytes | memoryview]:
    """An entry of a map of tensors, in parts of which the last are the array's own bytes."""
    if array.dtype.hasobject:
        message = tf.TensorProto()
        write_tensor(message, array)
        tensor: list[bytes | memoryview] = [_serialized(message)]
    else:
        tensor = [_tensor_head(dtype_number(array.dtype), array.shape, array.nbytes), *_content(array)]
    key, size = _text(_KEY, name), sum(map(len, tensor))
    value = _head(_VALUE, size)
    return [_head(tag, sum(map(len, key)) + len(value) + size), *key, value, *tensor]


@lru_cache
def _tensor_head(number: int, shape: tuple[int, ...], size: int) -> bytes:
    """All of a TensorProto that is not its values."""
    message = tf.TensorProto(dtype=number)  # type: ignore[arg-type]
    for each in shape:
        message.tensor_shape.dim.add().size = each
    return _serialized(message) + (_head(_CONTENT, size) if size else b"")


def _content(array: Array) -> list[memoryview]:
    return [array.reshape(-1).view(np.uint8).data] if array.size else []


def _text(tag: int, text: str) -> list[bytes | memoryview]:
    value = text.encode()
    return [_head(tag, len(value)), value]


def _head(tag: int, number: int) -> bytes:
    """A tag and a number: the size of the bytes that follow."""
    head = bytearray([tag])
    while number >= 0x80:
        head.append(number & 0x7F | 0x80)
        number >>= 7
    head.append(number)
    return bytes(head)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
