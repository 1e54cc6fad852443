"""The files of a data set: how each is called, and where it is opened. It does not know what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from sluice.policy.errors import BadRequest

SUFFIXES = (".npz", ".csv", ".jsonl", ".parquet")


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
        return cast("BinaryIO", system.open(path, "rb"))

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
