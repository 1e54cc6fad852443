"""The tensor codec: numpy arrays to and from TensorFlow's `TensorProto`.

Works alike on our own messages (`sluice.tfs.v1`) and on the official ones, which have the same fields; it knows
nothing of batches, models or transports.
"""

import math
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import numpy_dtype

Array = NDArray[Any]

# DataType number of the wire → name used in contracts and messages.
DTYPE_NAMES: dict[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
DTYPE_NUMBERS = {name: number for number, name in DTYPE_NAMES.items()}
_STRING = DTYPE_NUMBERS["string"]


class TensorMessage(Protocol):
    """What the codec asks of a `TensorProto` class, ours or the official one."""

    dtype: Any
    tensor_content: bytes

    @property
    def tensor_shape(self) -> Any: ...


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The dtype name of a numpy dtype, the inverse of `numpy_dtype`."""
    return "string" if dtype.hasobject else dtype.name


# DataType number of the wire → numpy dtype.
NUMPY_DTYPES = {number: numpy_dtype(name) for number, name in DTYPE_NAMES.items()}
_NUMBERS = {dtype: number for number, dtype in NUMPY_DTYPES.items()}

# Where numbers lie when they are not in `tensor_content`; the others lie in `int_val`.
_VALUE_FIELDS: dict[str, str] = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}
_HALVES = ("float16", "bfloat16")
_FILL_LIMIT = 1 << 26  # bytes that a short list may be filled up to: a large shape costs its sender nothing
_RANK_LIMIT = 64  # numpy's


def dtype_number(dtype: np.dtype[Any]) -> int:
    """The DataType number of a numpy dtype."""
    return _NUMBERS[dtype]


def write_tensor(message: TensorMessage, array: Array) -> None:
    """Fill an empty `TensorProto` from `array` (any shape; objects must be `bytes`)."""
    message.dtype = number = _NUMBERS[array.dtype]
    for size in array.shape:
        message.tensor_shape.dim.add().size = size
    if number == _STRING:
        message.string_val.extend(array.ravel())  # type: ignore[attr-defined]
    else:
        message.tensor_content = array.tobytes()


def read_tensor(message: TensorMessage) -> Array:
    """The array that a `TensorProto` holds, read-only where it shares the message's bytes.

    Raises:
        ValueError: unknown dtype, unknown or negative shape, or a number of values that does not fit the shape.
    """
    dtype = NUMPY_DTYPES.get(message.dtype)
    if dtype is None:
        raise ValueError(f"dtype number {message.dtype} is not one this server reads: {sorted(DTYPE_NUMBERS)}")
    shape = _shape(message.tensor_shape)
    if 0 in shape:
        return np.empty(shape, dtype)
    if message.tensor_content and message.dtype != _STRING:
        return _content(message.tensor_content, dtype, shape)
    return _fill(_values(message, dtype), shape)


def _shape(message: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in message.dim)
    if message.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"a tensor needs a known shape; got {'unknown rank' if message.unknown_rank else shape}")
    if len(shape) > _RANK_LIMIT:
        raise ValueError(f"a tensor may have {_RANK_LIMIT} axes; got {len(shape)}")
    return shape


def _content(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    size = math.prod(shape) * dtype.itemsize
    if len(content) != size:
        raise ValueError(f"shape {list(shape)} of {dtype.name} takes {size} bytes; got {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape)


def _values(message: Any, dtype: np.dtype[Any]) -> Array:
    """The typed list of a message, in one dimension."""
    name = DTYPE_NAMES[message.dtype]
    if name == "string":
        return _objects(message.string_val)
    field = _VALUE_FIELDS.get(name, "int_val")
    values = getattr(message, field)
    if dtype.kind in "fc" and name not in _HALVES:
        return _packed(message, field, dtype)
    # Whole numbers and bit patterns are cut to the width of their dtype, as TensorFlow does.
    wide = np.fromiter(values, np.uint64 if name == "uint64" else np.int64, len(values))
    return wide.astype(np.uint16).view(dtype) if name in _HALVES else wide.astype(dtype)


def _objects(values: Any) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _packed(message: Any, field: str, dtype: np.dtype[Any]) -> Array:
    """A list of floats by way of its wire format, which is many times faster than number by number."""
    alone = type(message)()
    alone.CopyFrom(message)
    alone.DiscardUnknownFields()
    for other, _ in message.ListFields():
        if other.name != field:
            alone.ClearField(other.name)
    size = len(getattr(message, field)) * dtype.itemsize // (2 if dtype.kind == "c" else 1)
    return np.frombuffer(alone.SerializeToString()[-size:] if size else b"", dtype)


def _fill(values: Array, shape: tuple[int, ...]) -> Array:
    """`values` in `shape`, as in TensorFlow: of a list that is too long the first values count, one that is too short
    repeats its last value, and an empty one stands for zeros.
    """
    size = math.prod(shape)
    if values.size < size and size * values.itemsize > _FILL_LIMIT:
        raise ValueError(f"shape {list(shape)} takes {size} values; got {values.size}")
    if values.size < size:
        last = values[-1:] if values.size else _zero(values.dtype)
        values = np.concatenate([values, np.repeat(last, size - values.size)])
    return values[:size].reshape(shape)


def _zero(dtype: np.dtype[Any]) -> Array:
    return np.array([b""], object) if dtype.hasobject else np.zeros(1, dtype)
