"""Rows of .npz files: ranges of their arrays, by seeking where they are stored, by streaming where they are deflated.

It does not know what the arrays mean. Nothing in a file is run or unpickled, and no size in it is believed.
"""

import io
from collections.abc import Mapping, Sequence
from math import prod
from struct import unpack
from typing import IO, Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sluice.data import bounds
from sluice.data.columns import Found
from sluice.policy.errors import BadRequest

Array = NDArray[Any]

_CHUNK = 1 << 20
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LOCAL_HEADER, _LENGTHS = 30, slice(26, 30)  # bytes of a member's own header, before its name; the lengths in it


class ArrayTable:
    """The arrays of one file by name; with `first`, each that is read is compared with its checksum."""

    def __init__(self, file: str, stream: BinaryIO, *, first: bool = False) -> None:
        self._file, self._stream, self._first = file, stream, first
        self._size = stream.seek(0, io.SEEK_END)
        try:
            self._archive = ZipFile(_Bounded(stream))
        except Exception as error:
            raise self._damaged(error) from None
        self._infos = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        self.found = Found(file, tuple(self._infos), frozenset(), typed=True)
        self._members = dict[str, _Member]()

    def read(self, start: int, stop: int, names: Sequence[str]) -> Mapping[str, Array]:
        try:
            members = {name: self._member(name) for name in names}
            counts = {name: member.shape[0] for name, member in members.items()}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{rows} of {name}" for name, rows in counts.items())
                raise BadRequest(f"{self._file}: expected as many rows of each array; got {told}")
            widest = sum(member.row_bytes for member in members.values())
            stop = min(stop, *counts.values(), start + max(1, bounds.AT_ONCE_BYTES // max(1, widest)))
            return {name: member.read(start, stop) for name, member in members.items()}
        except BadRequest:
            raise
        except Exception as error:  # what a damaged archive makes numpy, zipfile and zlib raise is not said anywhere
            raise self._damaged(error) from None

    def where(self, row: int) -> str:
        return f"row {row}"

    def close(self) -> None:
        self._archive.close()
        self._stream.close()

    def _member(self, name: str) -> "_Member":
        if name not in self._members:
            info = self._infos[name]
            self._members[name] = _Member(self._file, name, self._archive, self._stream, info)
            expanded = sum(max(member.size, member.shape[0]) for member in self._members.values())
            if bounds.is_bomb(expanded, self._size):
                raise BadRequest(
                    f"{self._file}: expected arrays of rows; {', '.join(self._members)} expand to {expanded:,} bytes "
                    f"from a file of {self._size:,}, far more than rows do. Save them by `numpy.savez`, uncompressed"
                )
            if self._first and info.compress_type == ZIP_STORED:  # the others are compared where they are read
                _read_through(self._archive, info)
        return self._members[name]

    def _damaged(self, error: Exception) -> BadRequest:
        told = str(error) or type(error).__name__
        return BadRequest(f"{self._file}: expected arrays, as `numpy.savez` writes them; {told}")


class _Member:
    """One array, `[rows, ...]`, of `size` bytes in all and `row_bytes` each."""

    def __init__(self, file: str, name: str, archive: ZipFile, stream: BinaryIO, info: ZipInfo) -> None:
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadRequest(f"{file}: expected {name!r} stored or deflated, as numpy does; got another compression")
        self._archive, self._stream, self._info = archive, stream, info
        self.size = info.file_size
        self._row = 0  # where the stream is
        self._open()
        head = npy.read_magic(self._member)
        if head not in _HEADERS:
            raise BadRequest(f"{file}: expected {name!r} to be numbers or text; got an array of another kind")
        self.shape, fortran, self._dtype = _HEADERS[head](self._member)
        self._begin = self._member.tell()
        if self._dtype.hasobject or self._dtype.names:
            raise BadRequest(
                f"{file}: expected {name!r} to be numbers or text; got Python objects or records, which are not read"
            )
        if not self.shape or min(self.shape) < 0:
            raise BadRequest(f"{file}: expected {name!r} to have a value for each row; got shape {list(self.shape)}")
        self.row_bytes = prod(self.shape[1:]) * self._dtype.itemsize
        if self._begin + self.shape[0] * self.row_bytes != self.size:
            raise BadRequest(
                f"{file}: expected {name!r} to be as large as its header says, {list(self.shape)} of "
                f"{self._dtype}; got {self.size - self._begin:,} bytes"
            )
        if self.row_bytes > bounds.ROW_BYTES:
            raise BadRequest(
                f"{file}: expected rows of at most {bounds.ROW_BYTES:,} bytes; those of {name!r} have "
                f"{self.row_bytes:,}"
            )
        self._by_column = fortran and prod(self.shape[1:]) > 1
        self._stored = info.compress_type == ZIP_STORED
        self._whole: Array | None = None
        if self._by_column and not self._stored and self.size > bounds.COLUMN_ORDER_BYTES:
            raise BadRequest(
                f"{file}: expected {name!r} in C order, as it is compressed; got Fortran order. Save it by "
                "`numpy.savez`, or after `numpy.ascontiguousarray`"
            )
        if self._stored:
            stream.seek(info.header_offset)
            lengths = unpack("<HH", stream.read(_LOCAL_HEADER)[_LENGTHS])
            self._begin += info.header_offset + _LOCAL_HEADER + sum(lengths)

    def read(self, start: int, stop: int) -> Array:
        """The rows `[stop - start, ...]`."""
        if self._by_column:
            return self._columns(start, stop)
        if self._stored:
            self._stream.seek(self._begin + start * self.row_bytes)
            data = _exactly(self._stream, (stop - start) * self.row_bytes)
        else:
            data = self._streamed(start, stop)
        return np.ndarray((stop - start, *self.shape[1:]), self._dtype, data)

    def _streamed(self, start: int, stop: int) -> bytes:
        if start < self._row:
            self._open()
            _skip(self._member, self._begin)
        _skip(self._member, (start - self._row) * self.row_bytes)
        data = _exactly(self._member, (stop - start) * self.row_bytes)
        self._row = stop
        return data

    def _columns(self, start: int, stop: int) -> Array:
        """Rows of an array that lies column by column."""
        rows, size = self.shape[0], self._dtype.itemsize
        if not self._stored:
            if self._whole is None:
                data = _exactly(self._member, self.size - self._begin)
                self._whole = np.frombuffer(data, self._dtype).reshape(self.shape, order="F")
            return np.ascontiguousarray(self._whole[start:stop])
        columns = list[Array]()
        for column in range(prod(self.shape[1:])):
            self._stream.seek(self._begin + (column * rows + start) * size)
            columns.append(np.frombuffer(_exactly(self._stream, (stop - start) * size), self._dtype))
        return np.ascontiguousarray(np.stack(columns).reshape(*self.shape[:0:-1], stop - start).T)

    def _open(self) -> None:
        self._member = self._archive.open(self._info)
        self._row = 0


class _Bounded(io.RawIOBase):
    """A file of which no more is read at once than a directory of arrays takes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(bounds.DIRECTORY_BYTES + 1 if size < 0 else min(size, bounds.DIRECTORY_BYTES + 1))
        if len(data) > bounds.DIRECTORY_BYTES:
            raise ValueError("the list of its arrays is too long")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = list[bytes]()
    while size:
        part = stream.read(min(size, _CHUNK))
        if not part:
            raise EOFError("an array ends too early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _skip(stream: IO[bytes], size: int) -> None:
    while size:
        part = stream.read(min(size, _CHUNK))
        if not part:
            raise EOFError("an array ends too early")
        size -= len(part)


def _read_through(archive: ZipFile, info: ZipInfo) -> None:
    """Raises: BadZipFile: its checksum is another."""
    with archive.open(info) as member:
        while member.read(_CHUNK):
            pass
