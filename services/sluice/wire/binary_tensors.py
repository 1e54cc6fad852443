"""Binary tensor data of the Open Inference Protocol: values of each datatype as bytes, and back.

It does not know JSON, messages or models.
"""

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import numpy_dtype
from sluice.policy.errors import BadRequest, ShapeMismatch

Array = NDArray[Any]

# The protocol's datatype → name of the dtype in contracts.
DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BF16": "bfloat16", "BYTES": "string",
}  # fmt: skip
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")  # before each element of BYTES


def raw_bytes(array: Array) -> bytes:
    """An array's values, row after row in little-endian order; each of BYTES after its length."""
    if not array.dtype.hasobject:
        return array.tobytes()
    return b"".join(part for value in array.ravel() for part in (_LENGTH.pack(len(value)), value))


def from_raw(name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """The inverse of `raw_bytes`; numbers share the memory of `raw`.

    Raises:
        ShapeMismatch: they are not as many bytes as the shape takes.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        values = _elements(name, memoryview(raw), count)
        array = np.empty(count, object)
        array[:] = values
        return array.reshape(shape)
    dtype = numpy_dtype(DTYPES[datatype])
    if len(raw) != count * dtype.itemsize:
        raise ShapeMismatch(
            f"Input {name!r} is {datatype} {list(shape)}, which takes {count * dtype.itemsize} bytes; {len(raw)} came."
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _elements(name: str, raw: memoryview, count: int) -> list[bytes]:
    values: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(raw) and len(values) < count:
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + size > len(raw):
            raise ShapeMismatch(f"Input {name!r}: element {len(values)} has {size} bytes by its length; fewer came.")
        values.append(bytes(raw[at : at + size]))
        at += size
    if at != len(raw) or len(values) != count:
        raise ShapeMismatch(
            f"Input {name!r} takes {count} elements, each after its length in 4 bytes; the {len(raw)} bytes that came "
            "do not hold just these."
        )
    return values


class Raw:
    """Binary tensor data, taken piece by piece."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, name: str, size: int) -> memoryview:
        if size > self.left:
            raise BadRequest(f"Input {name!r} has {size} bytes of binary data; {self.left} are left in the body.")
        self._at += size
        return self._data[self._at - size : self._at]
