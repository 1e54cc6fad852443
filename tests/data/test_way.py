"""How little is read again: forward, a file is read once; anywhere else, a short way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sluice.data import DataSet, File, bounds, look
from sluice.policy.contract import Axis, Tensor
from tests.data.written import FORMATS

ROWS = 20_000
INPUTS = {"x": Tensor("x", "int32", (Axis("batch"),))}


@dataclass(frozen=True)
class Counted(File):
    """A file that counts the bytes that are read of it, and how often it is opened."""

    counts: list[int] = field(default_factory=list, compare=False)

    def open(self) -> BinaryIO:
        self.counts.append(0)
        return _Counting(super().open(), self.counts)  # type: ignore[return-value]


class _Counting:
    def __init__(self, stream: BinaryIO, counts: list[int]) -> None:
        self._stream, self._counts = stream, counts

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._counts[-1] += len(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        return self.read(min(size, 1 << 10) if size > 0 else 1 << 10)

    def __enter__(self) -> "_Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.fixture(params=[name for name in FORMATS if "by column" not in name])  # whose rows are vectors
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def counted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(bounds, "AT_ONCE_ROWS", 50)
    suffix, write = FORMATS[name]
    write(tmp_path / f"rows{suffix}", [{"x": number, "label": number} for number in range(ROWS)])
    return Counted(f"rows{suffix}", str(tmp_path / f"rows{suffix}"))


def test_a_file_that_is_read_forward_is_read_once(counted: Counted) -> None:
    size = Path(counted.url).stat().st_size
    with look([counted], INPUTS) as data_set:
        assert max(counted.counts) <= 1.1 * size + 70_000
        counted.counts.clear()
        for start in range(0, ROWS, 80):
            assert data_set.read(start, start + 80).labels[0] in (start, str(start))
        assert len(counted.counts) == 1
        assert sum(counted.counts) <= 1.1 * size + 70_000


@pytest.mark.parametrize(
    "read",
    [lambda data_set, place: data_set.read(place, place + 1), lambda data_set, place: data_set.read_rows([place])],
)
def test_a_row_at_the_end_is_a_short_way_off(counted: Counted, name: str, read: Callable[[DataSet, int], Any]) -> None:
    size = Path(counted.url).stat().st_size
    way = {"deflated npz": 3 * size, "parquet": 0.8 * size}  # from the beginning, or that of a row group in three
    with look([counted], INPUTS) as data_set:
        data_set.read(0, 1)
        counted.counts.clear()
        counted.counts.append(0)
        for place in (ROWS - 1, ROWS - 100, ROWS - 2):
            assert read(data_set, place).labels[0] in (place, str(place))
        assert sum(counted.counts) <= way.get(name, 50_000)
        assert len(counted.counts) == 1
