"""A store that does not answer is told apart from a file that is not there, or not for us."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import pytest
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFile

from sluice.data import File, look
from sluice.policy.errors import BackendUnavailable, BadRequest, SluiceError
from tests.data.test_ranges import INPUTS, rows_of
from tests.data.written import FORMATS


class EndpointConnectionError(Exception):
    """As botocore has it, which is no OSError."""


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


class ClientResponseError(Exception):
    """As aiohttp has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status

    @property
    def code(self) -> int:
        raise DeprecationWarning("code property is deprecated, use status instead")


AWAY = [
    ConnectionResetError("reset"), TimeoutError(), FSTimeoutError(), OSError(5, "Input/output error"), HttpError(503),
    EndpointConnectionError("no route"), HttpError(429), ClientResponseError(502),
]  # fmt: skip
REFUSED = [
    FileNotFoundError("rows"), PermissionError("Access Denied"), OSError("Forbidden: rows"), HttpError(401),
    IsADirectoryError("rows"), ClientResponseError(403),
]  # fmt: skip
CASES = [*((error, BackendUnavailable) for error in AWAY), *((error, BadRequest) for error in REFUSED)]


@pytest.fixture
def system() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def stored(system: Any, folder: Path, name: str) -> File:
    suffix, write = FORMATS[name]
    write(folder / f"rows{suffix}", rows_of(Random(name), 300))
    system.pipe(f"/bucket/rows{suffix}", (folder / f"rows{suffix}").read_bytes())
    return File(f"rows{suffix}", f"memory://bucket/rows{suffix}")


@pytest.mark.parametrize(("error", "told"), CASES, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_a_file_that_cannot_be_had_now_is_told_apart_from_one_that_never_will(
    system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[SluiceError]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    file = stored(system, tmp_path, "csv")
    monkeypatch.setattr(type(system), "open", refuse)
    with pytest.raises(told, match=r"rows\.csv.* (cannot be read now|expected a file of rows)"):
        look([file], INPUTS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("where", [0.0, 0.5])
def test_a_store_that_goes_away_while_it_is_read_is_told_so_and_no_damaged_file(
    system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: float
) -> None:
    file = stored(system, tmp_path, name)
    with look([file], INPUTS) as data_set:
        rows = data_set.read(0, data_set.rows)
        data_set.close()
        left = len(system.cat(file.url)) * where
        read = MemoryFile.read

        def breaks(stream: MemoryFile, size: int = -1) -> bytes:
            nonlocal left
            left -= size
            if left <= 0:
                raise EndpointConnectionError("no route")
            return bytes(read(stream, size))

        with monkeypatch.context() as patch:
            patch.setattr(MemoryFile, "read", breaks)
            with pytest.raises(BackendUnavailable, match=r"rows\..* cannot be read now: no route"):
                look([file], INPUTS)
            left = len(system.cat(file.url)) * where
            with pytest.raises(BackendUnavailable, match="no route"):
                data_set.read(0, data_set.rows)
        data_set.close()
        assert data_set.read(0, data_set.rows).labels == rows.labels
