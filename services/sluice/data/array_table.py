"""Rows of .npz files. Nothing in one is run or unpickled, and no size in it is believed.

It does not know what the arrays mean.
"""

import io
from collections.abc import Mapping, Sequence
from typing import BinaryIO
from zipfile import ZipFile

from sluice.data import bounds
from sluice.data.columns import Found
from sluice.data.member import Array, Member
from sluice.policy.errors import BadRequest, SluiceError


class ArrayTable:
    """The arrays of one file by name; unless they were `found` before, each is compared with its checksum."""

    def __init__(self, file: str, stream: BinaryIO, found: Found | None) -> None:
        self._file, self._stream, self._first = file, stream, found is None
        self._size = stream.seek(0, io.SEEK_END)
        try:
            self._archive = ZipFile(_Bounded(stream))
        except Exception as error:
            raise self._damaged(error) from None
        self._infos = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        self.found = Found(file, tuple(self._infos), frozenset(), typed=True)
        self._members = dict[str, Member]()

    def read(self, start: int, stop: int, names: Sequence[str]) -> Mapping[str, Array]:
        try:
            members = {name: self._member(name) for name in names}
            counts = {name: member.rows for name, member in members.items()}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{rows} of {name}" for name, rows in counts.items())
                raise BadRequest(f"{self._file}: expected as many rows of each array; got {told}")
            row_bytes = sum(member.row_bytes for member in members.values())
            stop = min(stop, *counts.values(), start + max(1, bounds.AT_ONCE_BYTES // max(1, row_bytes)))
            return {name: member.read(start, stop) for name, member in members.items()}
        except Exception as error:  # what a damaged archive makes numpy, zipfile and zlib raise is not said anywhere
            raise self._damaged(error) from None

    def where(self, row: int) -> str:
        return f"row {row}"

    def close(self) -> None:
        self._archive.close()
        self._stream.close()

    def _member(self, name: str) -> Member:
        if name not in self._members:
            try:
                self._members[name] = Member(self._archive, self._stream, self._infos[name], first=self._first)
            except BadRequest as error:
                raise BadRequest(f"{self._file}: expected {name!r} to be {error.message}") from None
            expanded = sum(max(member.size, member.rows) for member in self._members.values())
            if bounds.is_bomb(expanded, self._size):
                raise BadRequest(
                    f"{self._file}: expected arrays of rows; {', '.join(self._members)} expand to {expanded:,} bytes "
                    f"from a file of {self._size:,}, far more than rows do. Save them by `numpy.savez`, uncompressed"
                )
        return self._members[name]

    def _damaged(self, error: Exception) -> SluiceError:
        if isinstance(error, SluiceError):
            return error
        told = str(error) or type(error).__name__
        return BadRequest(f"{self._file}: expected arrays, as `numpy.savez` writes them; {told}")


class _Bounded(io.RawIOBase):
    """A file of which no more is read at once than a list of arrays takes."""

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
