"""However large a file is, reading it takes a few megabytes."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sluice.data import DataSet, bounds, files_of, look
from sluice.policy.contract import Axis, Tensor

X = {"x": Tensor("x", "float32", (Axis("batch"), Axis("axis", 250)))}
ROWS, BOUND = 6000, 2 << 20  # rows of 1 kB: three times the bound


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "AT_ONCE_BYTES", 32 << 10)


@contextmanager
def bounded() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


def read_through(data_set: DataSet) -> None:
    for start in range(0, data_set.rows, 100):
        data_set.read(start, min(start + 100, data_set.rows))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_never_whole_in_memory(tmp_path: Path, save) -> None:
    file = tmp_path / "rows.npz"
    x = np.random.default_rng(0).integers(0, 100, (ROWS, 250)).astype(np.float32)
    save(file, x=x)
    del x
    with bounded(), look(files_of(file), X) as data_set:
        read_through(data_set)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_is_never_whole_in_memory(tmp_path: Path, suffix: str) -> None:
    row = [*range(1000, 1250)]
    with (tmp_path / f"rows{suffix}").open("w") as stream:
        stream.write(",".join(f"x.{place}" for place in row) + "\n" if suffix == ".csv" else "")
        for _ in range(ROWS // 3):
            stream.write((",".join(map(str, row)) if suffix == ".csv" else json.dumps({"x": row})) + "\n")
    with bounded(), look(files_of(tmp_path), X) as data_set:
        data_set.read(1900, 1901)


def test_a_parquet_file_of_one_row_group_is_never_whole_in_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 250)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 250)
    parquet.write_table(pa.table({"x": column}), tmp_path / "rows.parquet", row_group_size=ROWS, use_dictionary=False)
    del x, column
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    try:
        with bounded(), look(files_of(tmp_path), X) as data_set:
            read_through(data_set)
        assert 0 < pool.max_memory() < 2 * BOUND
    finally:
        pa.set_memory_pool(usual)
