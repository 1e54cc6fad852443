"""The files of labelled rows: the same bytes every time, and every text as it was."""

from zipfile import ZipFile

import numpy as np
import pytest

from sluice_models import labelled
from sluice_models.labelled import Labelled
from tests.models.labelled_rows import read

ARRAYS = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "label": np.array(["a", "", "ü"])}
TEXTS = {"text": ['"1. März"\t\\', "a\u2028b\x85c\r\nd", "2071年 🗓"], "label": ["a", "", "ü"], "ids": [[1, 2], [], [3]]}


@pytest.mark.parametrize("columns", [ARRAYS, TEXTS], ids=["arrays", "texts"])
def test_writing_twice_gives_the_same_bytes(columns, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        labelled.write(Labelled(columns, "classification", {"classes": ("a", "ü")}), folder, "mine")
    first, again = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert first == again
    for file in folders[0].glob("*.npz"):
        with ZipFile(file) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_arrays_and_the_request_are_read_as_they_were_written(tmp_path):
    file = labelled.write(Labelled(ARRAYS, "classification", {"classes": ("a", "ü")}), tmp_path, "mine")
    request, columns = read(tmp_path, "mine")
    assert (file, request["data"]) == (tmp_path / "mine.evaluation.json", {"path": "mine.labelled.npz"})
    assert (request["task"], request["options"]) == ("classification", {"classes": ["a", "ü"]})
    assert columns.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(columns[name], array, strict=True)


def test_a_row_of_texts_is_one_line_whatever_characters_it_holds(tmp_path):
    labelled.write(Labelled(TEXTS, "sequences", {}), tmp_path, "mine")
    assert read(tmp_path, "mine")[1] == TEXTS
    content = (tmp_path / "mine.labelled.jsonl").read_bytes()
    assert content.count(b"\n") == 3
    assert b"\r" not in content
