"""One file of rows as columns, whatever its format. It does not know what the columns mean."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from sluice.data.array_table import ArrayTable
from sluice.data.columns import Found
from sluice.data.files import File, refused
from sluice.data.lines import Index, Lines
from sluice.data.parquet_table import ParquetTable
from sluice.data.text_table import FORMS, TextTable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

_CHUNK = 1 << 18
_TABLES: Mapping[str, type[ArrayTable | ParquetTable]] = {".npz": ArrayTable, ".parquet": ParquetTable}


class Table(Protocol):
    """A file that is read forward, and from anywhere."""

    found: Found

    def read(self, start: int, stop: int, names: Sequence[str]) -> Mapping[str, Any]:
        """Columns from the row `start`, an array or a list each, of one row or more up to `stop`; of none at the end.

        It goes on where it stopped the last time, without beginning again.

        Raises:
            BadRequest: the file is damaged, or not what it seems.
        """

    def where(self, row: int) -> str:
        """A row that was read last, in the words of its file."""

    def close(self) -> None: ...


class Checksum:
    """Of the bytes of files, one after the other; `go_on` is called as they come."""

    def __init__(self, go_on: Callable[[], object]) -> None:
        self._go_on = go_on
        self._digest = hashlib.sha256()
        self.bytes = 0

    def update(self, data: "bytes | memoryview[int]") -> None:
        self._go_on()
        self._digest.update(data)
        self.bytes += len(data)

    def hex(self) -> str:
        return self._digest.hexdigest()


def first_look(file: File, checksum: Checksum) -> tuple[Table, Index | None]:
    """A file whose rows are to be read once, in order, to the end: then all its bytes are in the checksum.

    The index of a file of text is there by then, too.

    Raises:
        BadRequest, BackendUnavailable: it cannot be opened or read, ever or now.
    """
    if form := FORMS.get(file.suffix):
        with closing(Lines(file.name, opened(file), form.ends)) as lines:
            found = form.found(lines)
        index = Index()
        return TextTable(form, found, io.BufferedReader(_Summed(opened(file), checksum)), index), index
    with opened(file) as stream:
        while chunk := stream.read(_CHUNK):
            checksum.update(chunk)
    return _table(file, None), None


def table_of(file: File, found: Found, index: Index | None) -> Table:
    """A file that was looked at before.

    Raises:
        BadRequest: as `first_look`.
    """
    if index is not None:
        return TextTable(FORMS[file.suffix], found, opened(file), index)
    return _table(file, found)


def _table(file: File, found: Found | None) -> Table:
    stream = opened(file)
    try:
        return _TABLES[file.suffix](file.name, stream, found)
    except BaseException:
        stream.close()
        raise


def opened(file: File) -> BinaryIO:
    return _told(file, file.open)


def fingerprint_of(file: File) -> str:
    """As `File.fingerprint`, with our errors."""
    return _told(file, file.fingerprint)


def _told(file: File, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:
        raise refused(file.name, error) from None


class _Summed(io.RawIOBase):
    """A stream that is read once, with the checksum of what was read."""

    def __init__(self, stream: BinaryIO, checksum: Checksum) -> None:
        self._stream, self._checksum = stream, checksum

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._checksum.update(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
