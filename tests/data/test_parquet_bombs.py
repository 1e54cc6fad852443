"""Parquet files of a few hundred bytes that are gigabytes in memory, and honest ones that look like them."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sluice.data import DataSet, bounds, files_of, look
from sluice.data.parquet_pages import expanded
from sluice.data.parquet_table import ParquetTable
from sluice.policy.contract import Axis, Tensor
from sluice.policy.errors import BadRequest

BATCH = Axis("batch")
SERIES = {"x": Tensor("x", "float32", (BATCH, Axis("time", ragged=True)))}
TEXT = {"x": Tensor("x", "string", (BATCH,))}
ROWS = 1000


def written(folder: Path, column: Any, **how: Any) -> Path:
    parquet.write_table(pa.table({"x": column}), folder / "rows.parquet", compression="zstd", **how)
    return folder / "rows.parquet"


def repeated(text: str, rows: int = ROWS) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def lists_of_one(values: int) -> Any:
    return pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), pa.array(np.zeros(values, np.int8)))


def looked(file: Path, inputs: Any) -> DataSet:
    with look(files_of(file), inputs) as data_set:
        return data_set


def test_a_list_of_one_value_over_and_over_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_ALWAYS_BYTES", 1 << 20)
    file = written(tmp_path, lists_of_one(1_000_000))
    assert file.stat().st_size < 2000
    before = pa.default_memory_pool().bytes_allocated()
    with pytest.raises(BadRequest, match=r"they expand to 4,0\d\d,\d+ bytes or more from a file of"):
        looked(file, SERIES)
    assert pa.default_memory_pool().bytes_allocated() == before


def test_a_text_that_is_too_long_is_refused_before_each_row_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LINE_BYTES", 1 << 20)
    file = written(tmp_path, repeated("x" * ((1 << 20) + 1)), store_schema=False)
    assert file.stat().st_size < 2000
    with pytest.raises(BadRequest, match=r"expected rows of at most 1,048,576 bytes of text; got 1,048,577"):
        looked(file, TEXT)


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_of_long_texts_no_more_are_taken_at_once_than_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_schema: bool, nested: bool
) -> None:
    monkeypatch.setattr(bounds, "AT_ONCE_BYTES", 10_000)
    texts = repeated("x" * 1000, 2 * ROWS if nested else ROWS)
    column = pa.ListArray.from_arrays(pa.array(range(0, 2 * ROWS + 1, 2), pa.int32()), texts) if nested else texts
    file = written(tmp_path, column, store_schema=store_schema)
    with file.open("rb") as stream:
        table, start = ParquetTable("rows.parquet", stream, None), 0
        while rows := table.read(start, ROWS, ["x"])["x"]:
            assert len(rows) <= (5 if nested else 10)
            start += len(rows)
    assert start == ROWS


def test_a_row_group_that_memory_has_no_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ROW_GROUP_BYTES", 10_000)
    column = pa.array(np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32).tolist())
    with pytest.raises(BadRequest, match=r"row groups of at most 10,000 bytes; got one that expands to \d\d,\d+\."):
        looked(written(tmp_path, column), SERIES)
    assert looked(written(tmp_path, column, row_group_size=200), SERIES).rows == ROWS


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_what_pages_expand_to_is_what_pyarrow_says_of_an_honest_file(tmp_path: Path, version: str, size: int) -> None:
    random = Random(version)
    table = pa.table(
        {
            "x": [[random.random() for _ in range(random.randrange(4))] for _ in range(ROWS)],
            "label": [random.choice(["a", "bee", None]) for _ in range(ROWS)],
            "weight": [*range(ROWS)],
        }
    )
    file = tmp_path / "rows.parquet"
    parquet.write_table(table, file, data_page_version=version, data_page_size=size, row_group_size=300)
    metadata = parquet.read_metadata(file)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [[group.column(number) for number in range(group.num_columns)] for group in groups]
    values = [sum(column.num_values for column in own) for own in columns]
    with file.open("rb") as stream:
        found = expanded(stream)
    for own, count, group in zip(found, values, groups, strict=True):
        assert 4 * count <= own <= 4 * count + group.total_byte_size


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_file_without_rows_among_others_is_read_as_none(tmp_path: Path, *, dictionary: bool) -> None:
    for name, texts in (("a", []), ("b", ["one", "two"])):
        parquet.write_table(
            pa.table({"x": pa.array(texts, pa.string())}), tmp_path / f"{name}.parquet", use_dictionary=dictionary
        )
    with look(files_of(tmp_path), TEXT) as data_set:
        assert [*data_set.read(0, data_set.rows).inputs["x"]] == [b"one", b"two"]
