"""The tensor codec of our own messages: numpy arrays to and from `sluice.v1.Tensor`.

It knows nothing of batches, models or transports.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import numpy_dtype
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.tensors import DTYPE_NUMBERS, dtype_name

Array = NDArray[Any]


def write_array(message: messages.Tensor, array: Array) -> None:
    """Fill an empty `Tensor` from `array` (any shape; objects must be `bytes`)."""
    message.dtype = dtype_name(array.dtype)
    message.shape.extend(array.shape)
    if array.dtype.hasobject:
        message.strings.extend(array.ravel().tolist())
    else:
        message.data = array.tobytes()


def read_array(message: messages.Tensor) -> Array:
    """The array of a `Tensor`; strings are an object array of `bytes`, and numbers are read where they lie.

    Raises:
        ValueError: the dtype is unknown, or the values do not fill the shape; says what was expected and what came.
    """
    if message.dtype not in DTYPE_NUMBERS:
        raise ValueError(f"dtype {message.dtype!r} is none of {', '.join(DTYPE_NUMBERS)}")
    dtype, shape = numpy_dtype(message.dtype), tuple(message.shape)
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {list(shape)} has a negative size")
    size = prod(shape)
    if dtype.hasobject:
        if len(message.strings) != size:
            raise ValueError(f"shape {list(shape)} takes {size} strings; got {len(message.strings)}")
        array = np.empty(size, object)
        array[:] = message.strings
        return array.reshape(shape)
    if len(message.data) != size * dtype.itemsize:
        raise ValueError(
            f"shape {list(shape)} of {message.dtype} takes {size * dtype.itemsize} bytes; got {len(message.data)}"
        )
    return np.frombuffer(message.data, dtype).reshape(shape)


def read_arrays(tensors: Mapping[str, messages.Tensor]) -> dict[str, Array]:
    """As `read_array`, by name; the name stands in what is raised."""
    arrays = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = read_array(tensor)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
    return arrays
