"""The files of a data set: how each is called, and where it is opened. It does not know what they hold."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from sluice.policy.errors import BackendUnavailable, BadRequest, SluiceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SUFFIXES = (".npz", ".csv", ".jsonl", ".parquet")
_LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError, ValueError)
_BUSY = (408, 429)  # statuses of HTTP below 500 with which a store asks for patience


@dataclass(frozen=True, slots=True)
class File:
    """One file: the name that sentences have for it, which says its format, and its absolute path or its URL."""

    name: str
    url: str

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def open(self) -> BinaryIO:
        """The bytes, from the beginning; seekable.

        Raises:
            Exception: what the file system raises where it cannot be opened.
        """
        if self._is_local:
            return Path(self.url).open("rb")
        system, path = self._stored()
        return io.BufferedReader(_Stored(self, system.open(path, "rb")))

    def fingerprint(self) -> str:
        """What is another after the file has changed: its size and time, or what its store has for that."""
        if self._is_local:
            found = Path(self.url).stat()
            return f"{found.st_size} {found.st_mtime_ns}"
        system, path = self._stored()
        system.invalidate_cache(path)
        return str(system.ukey(path))

    @property
    def _is_local(self) -> bool:
        return Path(self.url).is_absolute()

    def _stored(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only URLs need it

        system, path = url_to_fs(self.url)
        return system, path


def refused(name: str, error: Exception) -> SluiceError:
    """What to say of an error that a file system or a store raised.

    Which these are is not said anywhere. Of a file that is not there, or not for us, it is BadRequest; anything else,
    such as a connection that breaks, may pass, and is BackendUnavailable.
    """
    told = f"{str(error) or type(error).__name__:.500}"
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)  # as aiohttp and gcsfs have it
    not_ours = told.startswith("Forbidden") or (isinstance(status, int) and 400 <= status < 500 and status not in _BUSY)
    if not_ours or isinstance(error, _LASTING):
        return BadRequest(f"{name:.200}: expected a file of rows; {told}")
    return BackendUnavailable(f"{name:.200} cannot be read now: {told}. Try again when it can.")


class _Stored(io.RawIOBase):
    """A file of a store, whose errors are ours."""

    def __init__(self, file: File, stream: Any) -> None:
        self._file, self._stream = file, stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except Exception as error:
            raise refused(self._file.name, error) from None
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place: int = self._stream.seek(offset, whence)
        return place

    def tell(self) -> int:
        place: int = self._stream.tell()
        return place

    def close(self) -> None:
        self._stream.close()
        super().close()


def files_of(path: Path) -> Sequence[File]:
    """A file of rows, or those of a folder in the order of their names.

    Raises:
        BadRequest: there are none, or it is of another kind.
    """
    if not path.exists():
        raise BadRequest(f"{path}: expected a file of rows or a folder of them; there is no such file")
    found = sorted(each for each in path.glob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    check_kind(str(path), [each.name for each in found])
    return [File(str(each), str(each.absolute())) for each in found]


def check_kind(name: str, found: Sequence[str]) -> None:
    """Raises: BadRequest: the files found under a name are none, or not of a kind that is read."""
    if not found or PurePosixPath(found[0]).suffix.lower() not in SUFFIXES:
        raise BadRequest(f"{name}: expected a file that ends in {', '.join(SUFFIXES)}, or a folder of them")
