"""Keeps files that clients send, in a folder of their own and within a quota, until they are removed.

It does not know which evaluations they are for, nor HTTP.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import BinaryIO

from sluice.data import File
from sluice.data.files import SUFFIXES
from sluice.policy.errors import BackendUnavailable, BadRequest, BodyTooLarge

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PART = ".part"  # the suffix of what is not whole yet


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is whole; `sha256` is that of its bytes, in hex."""

    path: str
    bytes: int
    sha256: str


class Uploads:
    """The files of one folder, `upload_bytes` each at most and `uploads_bytes` together; it is this process' own."""

    def __init__(self, folder: Path, *, upload_bytes: int, uploads_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._upload_bytes, self._uploads_bytes = upload_bytes, uploads_bytes
        self._lock = Lock()
        for left in self._folder.glob(f"*{_PART}"):  # by a process that was killed
            left.unlink()
        self._used = sum(each.stat().st_size for each in self._folder.iterdir())

    async def receive(self, id: str, name: str, parts: AsyncIterator[bytes]) -> Received:
        """Write what comes to a file of this id; of its `name` only the suffix counts.

        Raises:
            BadRequest: it is not of a kind that is read, or empty; nothing is left of it, as with any error.
            BodyTooLarge: it is too large, or there is no room for it.
            BackendUnavailable: it cannot be written.
        """
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise BadRequest(f"name: expected a file that ends in {', '.join(SUFFIXES)}; got {name!r:.200}")
        whole, digest, size = self._folder / f"{id}{suffix}", hashlib.sha256(), 0
        part = whole.with_name(f"{whole.name}{_PART}")
        try:
            with os.fdopen(os.open(part, _NEW, 0o600), "wb") as stream:
                async for data in parts:
                    self._take(size, len(data))
                    size += len(data)
                    digest.update(data)
                    await asyncio.to_thread(stream.write, data)
                await asyncio.to_thread(_flush, stream)
            if not size:
                raise BadRequest("expected a file of rows; the one that came is empty")
            part.replace(whole)
        except BaseException as error:
            part.unlink(missing_ok=True)
            self._give_back(size)
            if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
                raise _no_room("the evaluator's disk is full", "Free some of it") from None
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                reason = f"its folder cannot be written: {error.strerror or error}"
                raise BackendUnavailable(f"The evaluator takes no uploads now; {reason}. Try again.") from None
            raise
        return Received(str(whole), size, digest.hexdigest())

    def files(self, path: str) -> Sequence[File]:
        """An upload's file, by the path that it was received with.

        Raises:
            BadRequest: it is gone.
        """
        file = Path(path)
        if file.parent != self._folder or not file.is_file():
            raise BadRequest("data.upload: the file of this upload is gone; send it again")
        return [File(file.name, path)]

    def remove(self, path: str) -> None:
        """Remove an upload's file, if it is there."""
        file = Path(path)
        if file.parent == self._folder and file.is_file():
            size = file.stat().st_size
            file.unlink()
            self._give_back(size)

    def expire(self, before: float, but: Collection[str] = ()) -> None:
        """Remove what was received before a time, in seconds since 1970, `but` these paths."""
        for file in self._folder.iterdir():
            if file.suffix != _PART and str(file) not in but and file.stat().st_mtime < before:
                self.remove(str(file))

    def _take(self, size: int, more: int) -> None:
        """Count what is written next of a file of `size`; as the whole file is given back, none of it if refused."""
        if size + more > self._upload_bytes:
            raise BodyTooLarge(
                f"An upload may have {self._upload_bytes:,} bytes; a larger one came. Send a part of the rows, or "
                "raise upload_bytes.",
                limit=self._upload_bytes,
            )
        with self._lock:
            if self._used + more > self._uploads_bytes:
                raise _no_room(
                    f"all uploads together may have {self._uploads_bytes:,} bytes, and {self._used:,} are in use",
                    "Delete evaluations that are done, or raise uploads_bytes",
                )
            self._used += more

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


def _no_room(reason: str, advice: str) -> BodyTooLarge:
    return BodyTooLarge(f"There is no room for this upload: {reason}. {advice}, and send it again.")


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
