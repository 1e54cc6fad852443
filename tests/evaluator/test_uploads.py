"""Files that clients send: written as they come, within bounds, and gone without a trace when something fails."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sluice.evaluator.uploads import Uploads
from sluice.policy.errors import BackendUnavailable, BadRequest, BodyTooLarge


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", upload_bytes=10, uploads_bytes=25)


def there(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "uploads").iterdir())


async def test_a_file_is_whole_under_its_id_whatever_it_is_called(uploads: Uploads, tmp_path: Path) -> None:
    got = await uploads.receive("a1", "../../Rows of mine.CSV", parts(b"x\n", b"1\n", b""))
    assert (got.bytes, got.sha256) == (4, hashlib.sha256(b"x\n1\n").hexdigest())
    assert there(tmp_path) == ["a1.csv"]
    [file] = uploads.files(got.path)
    with file.open() as stream:
        assert stream.read() == b"x\n1\n"
    assert os.stat(got.path).st_mode & 0o077 == 0
    uploads.remove(got.path)
    uploads.remove(got.path)
    assert there(tmp_path) == []
    with pytest.raises(BadRequest, match="the file of this upload is gone; send it again"):
        uploads.files(got.path)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "", ".csv", "rows.csv.exe", "rows.npz.pickle"])
async def test_a_name_says_a_format_that_is_read(uploads: Uploads, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=r"expected a file that ends in \.npz, \.csv, \.jsonl, \.parquet"):
        await uploads.receive("a1", name, parts(b"x"))
    assert there(tmp_path) == []


async def test_nothing_is_left_of_what_is_too_large_or_empty_or_breaks_off(uploads: Uploads, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError("gone")

    with pytest.raises(
        BodyTooLarge, match=r"An upload may have 10 bytes; a larger one came\. Send a part .* upload_bytes"
    ):
        await uploads.receive("a1", "a.csv", parts(b"12345", b"678901"))
    with pytest.raises(BadRequest, match="the one that came is empty"):
        await uploads.receive("a1", "a.csv", parts())
    with pytest.raises(ConnectionError):
        await uploads.receive("a1", "a.csv", broken())
    assert there(tmp_path) == []
    for id in ("a1", "a2"):  # all the room is free again
        await uploads.receive(id, "a.csv", parts(b"1234567890"))
    assert there(tmp_path) == ["a1.csv", "a2.csv"]


async def test_all_uploads_share_a_quota_those_that_are_coming_too(uploads: Uploads, tmp_path: Path) -> None:
    half, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"12345678"
        half.set()
        await go_on.wait()
        yield b"9"

    first = await uploads.receive("a1", "a.csv", parts(b"1234567890"))
    coming = asyncio.create_task(uploads.receive("a2", "a.csv", slow()))
    await half.wait()
    with pytest.raises(BodyTooLarge, match=r"all uploads together may have 25 bytes, and 18 are in use\. Delete"):
        await uploads.receive("a3", "a.csv", parts(b"12345678"))
    go_on.set()
    second = await coming
    assert second.bytes == 9
    uploads.remove(first.path)
    await uploads.receive("a3", "a.csv", parts(b"12345678"))
    again = Uploads(tmp_path / "uploads", upload_bytes=10, uploads_bytes=25)  # what is there counts after a restart
    with pytest.raises(BodyTooLarge, match="and 17 are in use"):
        await again.receive("a4", "a.csv", parts(b"123456789"))


async def test_a_cancelled_upload_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await asyncio.Event().wait()

    coming = asyncio.create_task(uploads.receive("a1", "a.csv", endless()))
    await begun.wait()
    coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert there(tmp_path) == []


async def test_a_full_disk_is_told_and_the_part_is_gone(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            BodyTooLarge, match=r"no room for this upload: the evaluator's disk is full\. Free some of it"
        ):
            await uploads.receive("a1", "a.csv", parts(b"x"))
    assert there(tmp_path) == []
    await uploads.receive("a1", "a.csv", parts(b"x"))


async def test_what_is_old_goes_but_for_what_is_in_use(uploads: Uploads, tmp_path: Path) -> None:
    paths = [(await uploads.receive(id, "a.csv", parts(b"x"))).path for id in ("a1", "a2", "a3")]
    for path, time in zip(paths, (100, 100, 200), strict=True):
        os.utime(path, (time, time))
    uploads.expire(before=150, but=[paths[1]])
    assert there(tmp_path) == ["a2.csv", "a3.csv"]


def test_parts_of_a_process_that_was_killed_go_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "a1.csv.part").write_bytes(b"x")
    Uploads(tmp_path / "uploads", upload_bytes=1, uploads_bytes=1)
    assert there(tmp_path) == []


@pytest.mark.parametrize("call", [Uploads.remove, Uploads.files])
def test_a_file_of_another_folder_is_no_upload(
    uploads: Uploads, tmp_path: Path, call: Callable[[Uploads, str], object]
) -> None:
    for path in (tmp_path / "own.csv", tmp_path / "uploads" / ".." / "own.csv"):
        (tmp_path / "own.csv").write_bytes(b"x")
        if call is Uploads.files:
            with pytest.raises(BadRequest, match="is gone"):
                call(uploads, str(path))
        else:
            call(uploads, str(path))
        assert (tmp_path / "own.csv").exists()


async def test_a_folder_that_cannot_be_written_is_said(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "uploads").rmdir()
    with pytest.raises(BackendUnavailable, match=r"takes no uploads now; .* cannot be written: No such file"):
        await uploads.receive("a1", "a.csv", parts(b"x"))
