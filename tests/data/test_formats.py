"""What each format may hold: for models with several inputs, with text, and with pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from sluice.data import Rows, files_of, look
from sluice.policy.contract import BFLOAT16, Axis, Tensor, numpy_dtype
from sluice.policy.errors import BadRequest

BATCH = Axis("batch")
INPUTS = {
    "age": Tensor("age", "int32", (BATCH,)),
    "place": Tensor("place", "float32", (BATCH, Axis("axis", 2))),
    "name": Tensor("name", "string", (BATCH,)),
}
AGE = {"age": INPUTS["age"]}
PICTURE = {"picture": Tensor("picture", "float32", (BATCH, Axis("height", 3), Axis("width", 2)))}


def read(path: Path, inputs: Mapping[str, Tensor]) -> Rows:
    """All rows."""
    with look(files_of(path), inputs) as data_set:
        return data_set.read(0, data_set.rows)


def test_columns_of_several_inputs_are_named_for_them(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("name,place.0,place.1,label,age,remark\nAda,0.5,1,x,36,-\nBob,2,3,y,7,-\n\n")
    data = read(file, INPUTS)
    assert len(data) == 2
    assert data.labels == ["x", "y"]
    assert data.inputs["age"].tolist() == [36, 7]
    assert data.inputs["age"].dtype == np.int32
    assert data.inputs["place"].tolist() == [[0.5, 1], [2, 3]]
    assert data.inputs["name"].tolist() == [b"Ada", b"Bob"]


def test_arrays_of_bfloat16_are_read_as_numpy_wrote_them(tmp_path: Path) -> None:
    values = np.array([0.5, -3], BFLOAT16)
    np.savez(tmp_path / "rows.npz", x=values)
    for dtype in ("bfloat16", "float32"):
        found = read(tmp_path / "rows.npz", {"y": Tensor("y", dtype, (BATCH,))}).inputs["y"]
        assert (found.dtype, found.tolist()) == (numpy_dtype(dtype), [0.5, -3])


def test_arrays_of_several_inputs_have_as_many_rows(tmp_path: Path) -> None:
    arrays = {"age": np.arange(2), "place": np.zeros((2, 2)), "name": np.array(["Ada", "Bob"])}
    np.savez(tmp_path / "rows.npz", **arrays)
    assert read(tmp_path / "rows.npz", INPUTS).labels is None
    np.savez(tmp_path / "rows.npz", **(arrays | {"age": np.arange(3)}))
    with pytest.raises(BadRequest, match="expected as many rows of each array; got 3 of age, 2 of place, 2 of name"):
        read(tmp_path / "rows.npz", INPUTS)


def test_each_row_of_a_file_has_its_own_label(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 3)):  # as many labels as rows, all files together
        np.savez(tmp_path / f"{name}.npz", x=np.arange(2), label=np.arange(count))
    with pytest.raises(BadRequest, match=r"a\.npz: expected as many rows of each array; got 2 of x, 1 of label"):
        read(tmp_path, AGE)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (np.array([b"\xff"]), "expected 'label' to hold text in UTF-8; 'utf-8' codec can't decode"),
        (np.array("cat"), r"expected 'label' to be an array with a value for each row; got one of shape \[\]"),
    ],
)
def test_labels_that_are_no_names_are_refused(tmp_path: Path, label: np.ndarray, reason: str) -> None:
    np.savez(tmp_path / "rows.npz", x=np.arange(1), label=label)
    with pytest.raises(BadRequest, match=f"rows.npz(, row 0)?: {reason}"):
        read(tmp_path / "rows.npz", AGE)


def test_a_line_of_json_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x": 1, "label": "a\u2028b"}\r\n{"x": 2, "label": "c\x85"}\n', "utf-8")
    assert read(tmp_path / "rows.jsonl", AGE).labels == ["a\u2028b", "c\x85"]


def test_files_that_are_damaged_or_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "rows.npz", x=np.arange(1000))
    whole = (tmp_path / "rows.npz").read_bytes()
    (tmp_path / "rows.npz").write_bytes(whole[:100] + bytes(50) + whole[150:])
    (tmp_path / "rows.csv").write_text(f"age\n{'1' * 200_000}")
    (tmp_path / "rows.jsonl").write_text("[" * 100_000)
    for name, reason in (
        ("rows.npz", "expected arrays, as `numpy.savez` writes them"),
        ("rows.csv", "line 2: expected a CSV file; field larger than field limit"),
        ("rows.jsonl", "line 1: expected an object in JSON"),
    ):
        with pytest.raises(BadRequest, match=reason):
            read(tmp_path / name, AGE)


def test_rows_of_all_files_have_one_shape_and_columns_a_fixed_one(tmp_path: Path) -> None:
    series = {"series": Tensor("series", "float32", (BATCH, Axis("time"), Axis("axis", 2)))}
    for name, steps in (("a", 3), ("b", 4)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, steps, 2)))
    reason = r"expected rows of one shape of the input series in all files; got \[\(3, 2\), \(4, 2\)\]"
    with pytest.raises(BadRequest, match=reason):
        read(tmp_path, series)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadRequest, match=r"expected rows of one fixed shape, as columns are; .*\.npz or \.jsonl"):
        read(tmp_path / "rows.csv", series)


def test_a_csv_file_with_a_fraction_for_a_whole_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age\n3.5\n")
    with pytest.raises(BadRequest, match="expected numbers for the input age"):
        read(tmp_path / "rows.csv", AGE)


def table(folder: Path, **columns: Any) -> Path:
    """A Parquet file with these columns."""
    parquet.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_parquet_columns_hold_numbers_lists_and_text(tmp_path: Path) -> None:
    data = read(table(tmp_path, name=["Ada", "Bob"], place=[[0.5, 1], [2, 3]], age=[36, 7], label=[2, 0]), INPUTS)
    assert data.labels.tolist() == [2, 0]
    assert data.inputs["age"].tolist() == [36, 7]
    assert data.inputs["place"].tolist() == [[0.5, 1], [2, 3]]
    assert data.inputs["name"].tolist() == [b"Ada", b"Bob"]


def test_parquet_inputs_may_be_in_columns_as_in_csv(tmp_path: Path) -> None:
    columns = {"name": ["Ada", "Bob"], "place.0": [0.5, 2], "place.1": [1.0, 3], "age": [36, 7], "remark": ["-", "-"]}
    assert read(table(tmp_path, **columns), INPUTS).inputs["place"].tolist() == [[0.5, 1], [2, 3]]
    only = {"place": INPUTS["place"]}
    frame = pd.DataFrame({"left": [0.5, 2], "right": [1, 3], "label": pd.Categorical(["b", "a"])}, index=[7, 5])
    frame.to_parquet(tmp_path / "frame.parquet")  # pandas writes this index as a column
    data = read(tmp_path / "frame.parquet", only)
    assert (data.inputs["place"].tolist(), data.labels) == ([[0.5, 1], [2, 3]], ["b", "a"])


@pytest.mark.parametrize("name", ["depth", "x", "metres"])
def test_a_parquet_column_of_numbers_is_an_input_of_one_number(tmp_path: Path, name: str) -> None:
    depth = {"depth": Tensor("depth", "float32", (BATCH, Axis("axis", 1)))}
    assert read(table(tmp_path, **{name: [0.5, 2]}), depth).inputs["depth"].tolist() == [[0.5], [2]]


def test_an_input_may_be_called_x_beside_others_in_parquet_columns(tmp_path: Path) -> None:
    inputs = {"x": Tensor("x", "int32", (BATCH,)), "place": INPUTS["place"]}
    data = read(table(tmp_path, **{"x": [36, 7], "place.0": [0.5, 2], "place.1": [1.0, 3]}), inputs)
    assert (data.inputs["x"].tolist(), data.inputs["place"].tolist()) == ([36, 7], [[0.5, 1], [2, 3]])


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", picture=np.zeros((0, 3, 2)), label=np.array([], str))
    with pytest.raises(BadRequest, match=r"rows\.npz: expected rows; got none"):
        read(tmp_path / "rows.npz", PICTURE)
    for columns in ({"picture": pa.array([], pa.list_(pa.float32()))}, {"age": pa.array([], pa.int32())}):
        file = table(tmp_path, label=pa.array([], pa.string()), **columns)
        with pytest.raises(BadRequest, match=r"rows\.parquet: expected rows; got none"):
            read(file, PICTURE if "picture" in columns else AGE)
    (tmp_path / "rows.csv").write_text("age,label\n")
    with pytest.raises(BadRequest, match=r"rows\.csv: expected rows; got none"):
        read(tmp_path / "rows.csv", AGE)


@pytest.mark.parametrize("kind", [pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.uint8(), 2), 3)])
@pytest.mark.parametrize("name", ["picture", "x"])
def test_parquet_pictures_are_lists_of_lists(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    pictures = np.arange(24).reshape(4, 3, 2).tolist()
    parquet.write_table(pa.table({name: pa.array(pictures, kind)}), tmp_path / "a.parquet", row_group_size=3)
    assert read(tmp_path / "a.parquet", PICTURE).inputs["picture"].tolist() == pictures


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"picture": [[[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4]]]}, "Input 'picture' takes float32"),
        ({"picture": [[[1, 2], [3, 4], [5, 6]], None]}, "Input 'picture' takes float32"),
        ({"picture": [[[1, 2], [3, 4], [5, None]]]}, "row 0: Input 'picture' takes float32 .*; null came"),
        ({"picture": ["a.png"]}, "expected 6 columns for the input picture, .*; got 1: picture"),
        ({"image": [[[1, 2], [3, 4], [5, 6]]]}, "expected the input picture, float32 .*; got image"),
        ({"a": [1.0], "b": [2.0]}, "expected 6 columns for the input picture, .*; got 2"),
        ({**{each: [1.0] for each in "abcde"}, "f": ["-"]}, "Input 'picture' takes float32"),
        ({"picture": [[[1, 2], [3, 4], [5, 6]]], "label": [float("nan")]}, "expected 'label' to hold finite numbers"),
        (
            {"picture": [[[1, 2], [3, 4], [5, 6]]], "label": [None]},
            "expected 'label' to hold a name, a number, or a list .*; got null",
        ),
    ],
)
def test_parquet_rows_that_are_no_pictures_are_refused(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        read(table(tmp_path, **columns), PICTURE)
