"""What callers give and get, to and from the tensors of messages: text becomes bytes, and answers can be written to."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from services.client.values import Array
from services.wire.arrays import read_arrays, write_array
from services.wire.sluice.v1 import sessions_pb2 as pb


def write_tensors(messages: Any, arrays: Mapping[str, Array]) -> None:
    """Fill a message's map, name → `Tensor`."""
    for name, array in arrays.items():
        write_array(messages[name], _encoded(array))


def read_tensors(messages: Mapping[str, pb.Tensor]) -> dict[str, Array]:
    """The arrays of a message's map; strings are `bytes`.

    Raises:
        ValueError: an unknown dtype, or values that do not fill the shape.
    """
    return {name: array.copy() for name, array in read_arrays(messages).items()}


def _encoded(array: Array) -> Array:
    """Text as UTF-8 `bytes`, in an object array of the same shape."""
    if array.dtype.kind not in "OSU":
        return array
    encoded = np.empty(array.size, object)
    encoded[:] = [text.encode() if isinstance(text, str) else text for text in array.ravel().tolist()]
    return encoded.reshape(array.shape)
