"""One array of an .npz file: what its header says, checked, and ranges of its rows.

It does not know what the array means.
"""

from math import prod
from struct import unpack
from typing import IO, Any, BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sluice.data import bounds
from sluice.policy.errors import BadRequest

Array = NDArray[Any]

_CHUNK = 1 << 18
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LOCAL_HEADER, _LENGTHS = 30, slice(26, 30)  # bytes of a member's own header, before its name; the lengths in it


class _Header(NamedTuple):
    """An array's shape and dtype, and how many bytes there are before its first value."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype[Any]
    bytes: int

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


class Member:
    """An array `[rows, ...]` of `size` bytes in all and `row_bytes` each row.

    It is streamed where it is deflated, else found by seeking. `first` is a reading from the beginning to the end: that
    is streamed, too, as zipfile compares the checksum of what it streams.
    """

    def __init__(self, archive: ZipFile, stream: BinaryIO, info: ZipInfo, *, first: bool) -> None:
        """Raises: BadRequest: it is not what is read; goes on from "expected it to be"."""
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadRequest("stored or deflated, as numpy does; got another compression")
        self._archive, self._stream, self._info = archive, stream, info
        self._member, self._row = archive.open(info), 0  # the stream, and the row that it is at
        self._header = _header(self._member, info.file_size)
        self.size, self.rows, self.row_bytes = info.file_size, self._header.shape[0], self._header.row_bytes
        self._whole: Array | None = None
        stored = info.compress_type == ZIP_STORED
        if self._header.by_column and not stored and self.size > bounds.COLUMN_ORDER_BYTES:
            raise BadRequest(
                "in C order, as it is compressed; got Fortran order. Save it by `numpy.savez`, or after "
                "`numpy.ascontiguousarray`"
            )
        self._begin: int | None = None  # of its values in the file, if they are found by seeking
        if stored and (self._header.by_column or not first):
            self._begin = self._place()
            if first:
                _skip(self._member, self.size - self._header.bytes)

    def read(self, start: int, stop: int) -> Array:
        """The rows `[stop - start, ...]`."""
        if self._header.by_column:
            return self._columns(start, stop)
        size = (stop - start) * self.row_bytes
        if self._begin is not None:
            self._stream.seek(self._begin + start * self.row_bytes)
            data = _exactly(self._stream, size)
        else:
            if start < self._row:
                self._member, self._row = self._archive.open(self._info), 0
                _skip(self._member, self._header.bytes)
            _skip(self._member, (start - self._row) * self.row_bytes)
            data = _exactly(self._member, size)
            self._row = stop
        return np.ndarray((stop - start, *self._header.shape[1:]), self._header.dtype, data)

    def _columns(self, start: int, stop: int) -> Array:
        """Rows of an array that lies column by column."""
        shape, dtype = self._header.shape, self._header.dtype
        if self._begin is None:
            if self._whole is None:
                data = _exactly(self._member, self.size - self._header.bytes)
                self._whole = np.ndarray(shape, dtype, data, order="F")
            return np.ascontiguousarray(self._whole[start:stop])
        columns = list[Array]()
        for column in range(prod(shape[1:])):
            self._stream.seek(self._begin + (column * self.rows + start) * dtype.itemsize)
            data = _exactly(self._stream, (stop - start) * dtype.itemsize)
            columns.append(np.ndarray(stop - start, dtype, data))
        return np.ascontiguousarray(np.stack(columns).reshape(*shape[:0:-1], stop - start).T)

    def _place(self) -> int:
        """Where the first value is in the file, for which its own header must be read."""
        self._stream.seek(self._info.header_offset)
        lengths: tuple[int, int] = unpack("<HH", self._stream.read(_LOCAL_HEADER)[_LENGTHS])
        return self._info.header_offset + _LOCAL_HEADER + sum(lengths) + self._header.bytes


def _header(member: IO[bytes], size: int) -> _Header:
    version = npy.read_magic(member)
    if version not in _READ_HEADER:
        raise BadRequest("numbers or text; got an array of another kind")
    shape, fortran, dtype = _READ_HEADER[version](member)
    found = _Header(shape, fortran and prod(shape[1:]) > 1, dtype, member.tell())
    if dtype.hasobject or (dtype.kind == "V" and dtype != "V2"):  # two bytes: bfloat16, which numpy's files do not know
        raise BadRequest(
            "numbers or text; got Python objects or records, which are not read. Save texts after `.astype(str)`"
        )
    if not shape or min(shape) < 0:
        raise BadRequest(f"an array with a value for each row; got one of shape {list(shape)}")
    if found.bytes + shape[0] * found.row_bytes != size:
        came = size - found.bytes
        raise BadRequest(f"as large as its header says, {list(shape)} of {dtype}; got {came:,} bytes")
    if found.row_bytes > bounds.ROW_BYTES:
        raise BadRequest(f"an array with rows of at most {bounds.ROW_BYTES:,} bytes each; got {found.row_bytes:,}")
    return found


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = list[bytes]()
    while size:
        parts.append(_some(stream, size))
        size -= len(parts[-1])
    return b"".join(parts)


def _skip(stream: IO[bytes], size: int) -> None:
    while size:
        size -= len(_some(stream, size))


def _some(stream: IO[bytes], size: int) -> bytes:
    part = stream.read(min(size, _CHUNK))
    if not part:
        raise EOFError("an array ends too early")
    return part
