"""Rows from files, for models with several inputs and with text."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from services.cli.data_files import read_data
from services.cli.explanation import CannotExplain
from services.policy.contract import Axis, Tensor

BATCH = Axis("batch")
INPUTS = {
    "age": Tensor("age", "int32", (BATCH,)),
    "place": Tensor("place", "float32", (BATCH, Axis("axis", 2))),
    "name": Tensor("name", "string", (BATCH,)),
}


def test_columns_of_several_inputs_are_named_for_them(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("name,place.0,place.1,label,age,remark\nAda,0.5,1,x,36,-\nBob,2,3,y,7,-\n\n")
    data = read_data(file, INPUTS)
    assert len(data) == 2
    assert data.labels == ("x", "y")
    assert data.inputs["age"].tolist() == [36, 7]
    assert data.inputs["age"].dtype == np.int32
    assert data.inputs["place"].tolist() == [[0.5, 1], [2, 3]]
    assert data.inputs["name"].tolist() == [b"Ada", b"Bob"]
    assert data.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_arrays_of_several_inputs_have_as_many_rows(tmp_path: Path) -> None:
    arrays = {"age": np.arange(2), "place": np.zeros((2, 2)), "name": np.array(["Ada", "Bob"])}
    np.savez(tmp_path / "rows.npz", **arrays)
    assert read_data(tmp_path / "rows.npz", INPUTS).labels is None
    np.savez(tmp_path / "rows.npz", **(arrays | {"age": np.arange(3)}))
    with pytest.raises(CannotExplain, match=r"expected as many rows of each input; got \[3, 2, 2\]"):
        read_data(tmp_path / "rows.npz", INPUTS)


def test_labels_may_be_bytes_and_places(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(2), label=np.array([b"cat", b"dog"]))
    np.savez(tmp_path / "b.npz", x=np.arange(1), label=np.array([2], np.uint8))
    assert read_data(tmp_path, {"age": INPUTS["age"]}).labels == ("cat", "dog", "2")


def test_a_csv_file_with_a_fraction_for_a_whole_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age\n3.5\n")
    with pytest.raises(CannotExplain, match="expected numbers for the input age"):
        read_data(tmp_path / "rows.csv", {"age": INPUTS["age"]})
