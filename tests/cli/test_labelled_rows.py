"""All rows of DATA for a command, and their labels as places of classes."""

from pathlib import Path

import numpy as np
import pytest

from sluice.cli.errors import CommandError
from sluice.cli.labelled_rows import Data, places_of, read_data
from sluice.policy.contract import Axis, Tensor

AGE = {"age": Tensor("age", "int32", (Axis("batch"),))}


def test_labels_may_be_names_and_places_as_bytes_and_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(2), label=np.array([b"cat", b"dog"]))
    np.savez(tmp_path / "b.npz", x=np.arange(1), label=np.array([2], np.uint8))
    data = read_data(tmp_path, AGE)
    assert (data.labels, data.inputs["age"].tolist()) == (("cat", "dog", "2"), [0, 1, 0])


@pytest.mark.parametrize(
    ("labels", "strange"), [(("dog", "yak"), "yak"), (("cat", "1"), "1"), (("1", "2"), "2"), (("0", "yak"), "yak")]
)
def test_a_strange_label_is_named_and_not_the_known_ones_beside_it(labels: tuple[str, ...], strange: str) -> None:
    with pytest.raises(CommandError, match=f"cat, dog, or their places from 0; got '{strange}'. So be it"):
        places_of(Data({}, labels, ""), ["cat", "dog"], Path("rows.npz"), "So be it")


@pytest.mark.parametrize("labels", ["[1, 2]", "0.5"])
def test_labels_that_are_no_names_of_classes_are_refused(tmp_path: Path, labels: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"x": 1, "label": {labels}}}')
    with pytest.raises(
        CommandError, match="expected 'label' to hold a name or a whole number for each row; got lists or"
    ):
        read_data(tmp_path / "rows.jsonl", AGE)


def test_a_column_of_weights_is_a_feature_here(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("length,weight,group,session,label\n1,2,3,4,cat\n")
    car = {"car": Tensor("car", "float32", (Axis("batch"), Axis("feature", 4)))}
    assert read_data(tmp_path / "rows.csv", car).inputs["car"].tolist() == [[1, 2, 3, 4]]
