"""The tensor codec: numpy arrays to and from TensorFlow's `TensorProto`.

Works alike on our own messages (`sluice.tfs.v1`) and on the official ones, which have the same fields; it knows
nothing of batches, models or transports.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.policy.contract import numpy_dtype

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


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The dtype name of a numpy dtype, the inverse of `numpy_dtype`."""
    return "string" if dtype.hasobject else dtype.name


_NUMPY_DTYPES = {number: numpy_dtype(name) for number, name in DTYPE_NAMES.items()}
_NUMBERS = {dtype: number for number, dtype in _NUMPY_DTYPES.items()}

# Where a number may lie when it is not in `tensor_content`.
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
    dtype = _NUMPY_DTYPES.get(message.dtype)
    if dtype is None:
        raise ValueError(f"dtype number {message.dtype} is not one this server reads: {sorted(DTYPE_NUMBERS)}")
    shape = _shape(message.tensor_shape)
    if message.tensor_content and message.dtype != _STRING:
        return np.frombuffer(message.tensor_content, dtype).reshape(shape)
    return _fill(_values(message, dtype), shape)


def _shape(message: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in message.dim)
    if message.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"a tensor needs a known shape; got {'unknown rank' if message.unknown_rank else shape}")
    return shape


def _values(message: Any, dtype: np.dtype[Any]) -> Array:
    """The typed list of a message, in one dimension."""
    name = DTYPE_NAMES[message.dtype]
    if name == "string":
        return np.array([*message.string_val, None], dtype=object)[:-1]
    values = getattr(message, _VALUE_FIELDS.get(name, "int_val"), ())
    if name in ("float16", "bfloat16"):
        return np.array(values, dtype=np.uint16).view(dtype)
    if name.startswith("complex"):
        return np.array(values, dtype=np.empty(0, dtype).real.dtype).view(dtype)
    return np.array(values, dtype=dtype)


def _fill(values: Array, shape: tuple[int, ...]) -> Array:
    """`values` in `shape`; as in TensorFlow, a list that is too short repeats its last value."""
    size = int(np.prod(shape))
    if values.size > size or (values.size == 0 < size):
        raise ValueError(f"shape {list(shape)} takes {size} values; got {values.size}")
    if 0 < values.size < size:
        values = np.concatenate([values, np.repeat(values[-1:], size - values.size)])
    return values.reshape(shape)
