"""Descriptions that do not fit their model are refused."""

import keras
import pytest
from keras import layers

from sluice.export import Description, ExportError, Meaning, export


def rnn() -> keras.Model:
    return keras.Sequential([keras.Input((None, 4), name="readings"), layers.LSTM(4)])


def test_a_description_of_a_tensor_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ExportError, match="description of 'temprature'"):
        export(rnn(), tmp_path / "1", Description(tensors={"temprature": Meaning()}))


def test_a_description_names_every_axis(tmp_path):
    with pytest.raises(ExportError, match="expected 1 axes after batch and time, got 2"):
        export(rnn(), tmp_path / "1", Description(tensors={"readings": Meaning(axes={"a": "", "b": ""})}))


def test_only_the_steps_are_called_time(tmp_path):
    with pytest.raises(ExportError, match="expected another name than 'time' for an axis after time"):
        export(rnn(), tmp_path / "1", Description(tensors={"readings": Meaning(axes={"time": ""})}))


@pytest.mark.parametrize("bounds", [[], [0, 4], [4, 4], [8, 4]])
def test_buckets_rise(bounds, tmp_path):
    with pytest.raises(ExportError, match="buckets of 'time': expected rising whole numbers from 1, got"):
        export(rnn(), tmp_path / "1", Description(buckets={"time": bounds}))


def test_buckets_are_of_an_axis_whose_length_is_free(tmp_path):
    with pytest.raises(ExportError, match=r"buckets of 'tiem': expected an axis .* \(time\)"):
        export(rnn(), tmp_path / "1", Description(buckets={"tiem": [4]}))
    rows = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(ExportError, match="none, as the model is served as rows"):
        export(rows, tmp_path / "1", Description(buckets={"time": [4]}))


@pytest.mark.parametrize("example", [[1.0], {"a": [1.0]}])
def test_an_example_has_one_row_of_each_input_by_name(example, tmp_path):
    entries = [keras.Input((1,), name=name) for name in "ab"]
    with pytest.raises(ExportError, match=r"one row of each input, by name \(a, b\)"):
        export(keras.Model(entries, layers.Add()(entries)), tmp_path / "1", Description(example=example))
