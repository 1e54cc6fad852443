"""What callers give and get, to and from the tensors of messages: text becomes bytes, and answers can be written to."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sluice.client.values import Array, is_text
from sluice.policy.errors import DtypeMismatch
from sluice.wire.arrays import read_arrays, write_array
from sluice.wire.messages.v1 import sessions_pb2 as pb


def write_tensors(messages: Any, arrays: Mapping[str, Array]) -> None:
    """Fill a message's map, name → `Tensor`."""
    for name, array in arrays.items():
        write_array(messages[name], encoded(array))


def read_tensors(messages: Mapping[str, pb.Tensor]) -> dict[str, Array]:
    """The arrays of a message's map; strings are `bytes`.

    Raises:
        ValueError: an unknown dtype, or values that do not fill the shape.
    """
    return {name: array.copy() for name, array in read_arrays(messages).items()}


def encoded(array: Array) -> Array:
    """Text as UTF-8 `bytes`, in an object array of the same shape; other arrays as they are.

    Raises:
        DtypeMismatch: it holds neither numbers nor text.
    """
    if array.dtype.kind not in "OSU":
        return array
    if not is_text(array):
        raise DtypeMismatch(f"An input takes numbers or text; got {array.tolist()!r:.80}.")
    found = np.empty(array.size, object)
    found[:] = [text.encode() if isinstance(text, str) else text for text in array.ravel().tolist()]
    return found.reshape(array.shape)
