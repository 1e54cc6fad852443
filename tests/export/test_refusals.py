"""What cannot be exported is refused by name and reason, and leaves nothing behind."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from sluice.export import (
    Call,
    CannotStep,
    Description,
    ExportError,
    Meaning,
    export,
    export_endpoints,
    export_file,
    walk,
)
from sluice.export.verify import _run_replay as run_replay  # before any fixture replaces it

NAME = "culprit"
READINGS = (None, 4)


def rnn(*before: keras.Layer, shape: tuple[int | None, ...] = READINGS) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *before, layers.LSTM(4, return_sequences=True)])


def attention() -> keras.Model:
    entry = keras.Input(READINGS)
    hidden = layers.LSTM(4, return_sequences=True)(entry)
    return keras.Model(entry, layers.Attention(name=NAME)([hidden, hidden]))


def raw_function() -> keras.Model:
    entry = keras.Input(READINGS)
    return keras.Model(entry, layers.LSTM(4)(keras.ops.cumsum(entry, axis=1)))


def given_state() -> keras.Model:
    entry = keras.Input(READINGS)
    state = layers.Dense(4)(layers.LSTM(4)(entry))
    return keras.Model(entry, layers.GRU(4, name=NAME)(entry, initial_state=state))


def mixed() -> keras.Model:
    entry = keras.Input(READINGS)
    last = layers.RepeatVector(1)(layers.LSTM(4)(entry))
    return keras.Model(entry, layers.Add(name=NAME)([entry, last]))


def shared_and_stateful() -> keras.Model:
    entry = keras.Input(batch_shape=(2, None, 4))
    lstm = layers.LSTM(4, return_sequences=True, stateful=True, name=NAME)
    return keras.Model(entry, lstm(lstm(entry)))


def concatenated(axis: int) -> keras.Model:
    entry = keras.Input(READINGS)
    hidden = layers.LSTM(4, return_sequences=True)(entry)
    return keras.Model(entry, layers.Concatenate(axis=axis, name=NAME)([entry, hidden]))


def with_returned_state() -> keras.Model:
    entry = keras.Input(READINGS)
    output, *_ = layers.LSTM(4, return_state=True, name=NAME)(entry)
    return keras.Model(entry, output)


def static_joined(join: keras.Layer) -> keras.Model:
    entry, static = keras.Input(READINGS), keras.Input((4,))
    return keras.Model([entry, static], layers.LSTM(4)(join([entry, layers.RepeatVector(1)(static)])))


def state_from_input() -> keras.Model:
    entry, static = keras.Input(READINGS), keras.Input((4,))
    return keras.Model([entry, static], layers.GRU(4, name=NAME)(entry, initial_state=static))


def masking_over_time() -> keras.Model:
    entry = keras.Input((None,))
    return keras.Model(entry, layers.LSTM(4)(keras.ops.expand_dims(layers.Masking(name=NAME)(entry), -1)))


def two_axes_of_mask() -> keras.Model:
    entry = keras.Input((None, 4))
    embedded = layers.Embedding(9, 4, mask_zero=True)(entry)
    return keras.Model(entry, layers.RNN(FlatCell(4), name=NAME)(embedded))


@keras.saving.register_keras_serializable("refusals")
class FlatCell(layers.SimpleRNNCell):
    """A cell that takes a matrix at each time step."""

    def build(self, input_shape):
        super().build((input_shape[0], input_shape[1] * input_shape[2]))

    def call(self, sequence, states, training=False):
        return super().call(keras.ops.reshape(sequence, (-1, sequence.shape[1] * sequence.shape[2])), states)


class RandomStart(layers.SimpleRNNCell):
    def get_initial_state(self, batch_size=None):
        return [keras.random.normal((batch_size, self.units))]


class OwnLoop(layers.SimpleRNN):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(keras.ops.flip(sequences, axis=1), initial_state, mask, training)


REFUSED = {
    "bidirectional": (
        lambda: rnn(layers.Bidirectional(layers.LSTM(2, return_sequences=True), name=NAME)),
        "from its end",
    ),
    "backwards": (
        lambda: rnn(layers.GRU(2, return_sequences=True, go_backwards=True, name=NAME)),
        "go_backwards=True reads the sequence from its end",
    ),
    "convolution": (lambda: rnn(layers.Conv1D(2, 3, name=NAME)), "neighbouring time steps"),
    "same_convolution": (lambda: rnn(layers.Conv1D(2, 3, padding="same", name=NAME)), "padding='causal'"),
    "depthwise_convolution": (lambda: rnn(layers.DepthwiseConv1D(3, name=NAME)), "neighbouring time steps"),
    "separable_convolution": (lambda: rnn(layers.SeparableConv1D(2, 3, name=NAME)), "neighbouring time steps"),
    "strided_convolution": (
        lambda: rnn(layers.Conv1D(2, 3, strides=2, padding="causal", name=NAME)),
        "strides=2 skips",
    ),
    "strided_projection": (lambda: rnn(layers.Conv1D(2, 1, strides=2, name=NAME)), "strides=2 skips"),
    "channels_first": (
        lambda: rnn(layers.Conv1D(4, 3, padding="causal", data_format="channels_first", name=NAME), shape=(3, 4)),
        "puts the time axis last",
    ),
    "projection_of_channels_first": (
        lambda: rnn(layers.Conv1D(4, 1, data_format="channels_first", name=NAME), shape=(3, 4)),
        "mixes the time steps",
    ),
    "convolution_of_ones_own": (
        lambda: rnn(type("Mine", (layers.Conv1D,), {})(2, 3, padding="causal", name=NAME)),
        "not known how its causal padding works",
    ),
    "pooling": (lambda: rnn(layers.MaxPooling1D(name=NAME)), "neighbouring time steps"),
    "attention": (attention, "the whole sequence"),
    "flatten": (
        lambda: keras.Sequential(
            [keras.Input((5, 4)), layers.LSTM(4, return_sequences=True), layers.Flatten(name=NAME), layers.Dense(1)]
        ),
        "rearranges the time axis",
    ),
    "reshape": (lambda: rnn(layers.Reshape((-1, 2), name=NAME)), "rearranges the time axis"),
    "permute": (lambda: rnn(layers.Permute((2, 1), name=NAME), shape=(4, 4)), "rearranges the time axis"),
    "convolutional_lstm": (
        lambda: keras.Sequential([keras.Input((None, 8, 8, 1)), layers.ConvLSTM2D(2, 3, name=NAME)]),
        "not supported",
    ),
    "normalised_over_time": (lambda: rnn(layers.LayerNormalization(axis=[1, 2], name=NAME), shape=(6, 4)), "axis 1"),
    "dense_over_time": (
        lambda: keras.Sequential(
            [keras.Input((6,)), layers.Dense(6, name=NAME), layers.Embedding(9, 4), layers.GRU(4)]
        ),
        "the time axis",
    ),
    "joined_along_time": (lambda: concatenated(axis=1), "axis 1"),
    "slopes_by_time": (lambda: rnn(layers.PReLU(name=NAME), shape=(6, 4)), "shared_axes=[1]"),
    "lambda": (lambda: rnn(layers.Lambda(lambda x: x, name=NAME)), "not known to treat each time step alone"),
    "given_state": (given_state, "initial_state= gives it a state"),
    "returned_state": (with_returned_state, "return_state=True"),
    "mixed": (mixed, "has no time axis"),
    "shared_and_stateful": (shared_and_stateful, "the second call"),
    "static_concatenated": (
        lambda: static_joined(layers.Concatenate(axis=1, name=NAME)),
        "an input that has no time axis",
    ),
    "static_of_equal_rank": (lambda: static_joined(layers.Add(name=NAME)), "an input that has no time axis"),
    "state_from_input": (state_from_input, "initial_state= gives it a state"),
    "mask_of_two_axes": (two_axes_of_mask, "its mask has 3 axes"),
    "masking_over_time": (masking_over_time, "the time axis"),
    "random_start": (
        lambda: keras.Sequential([keras.Input(READINGS), layers.RNN(RandomStart(4), name=NAME)]),
        "not the same for every row and every sequence",
    ),
    "own_loop": (
        lambda: keras.Sequential([keras.Input(READINGS), OwnLoop(4, name=NAME)]),
        "`call` or `inner_loop` of its own",
    ),
    "stateful_inside": (
        lambda: keras.Sequential(
            [
                keras.Input(batch_shape=(2, 5, 3, 4)),
                layers.TimeDistributed(layers.LSTM(4, stateful=True), name=NAME),
                layers.LSTM(4),
            ]
        ),
        "the layer in it is stateful",
    ),
}


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_layer_that_cannot_be_stepped_is_refused_by_name_and_reason(build, reason, tmp_path):
    with pytest.raises(CannotStep) as refused:
        export(build(), tmp_path / "model" / "1")
    assert refused.value.layer == NAME
    assert reason in refused.value.reason
    assert f"layer '{NAME}'" in str(refused.value)
    assert not [*tmp_path.iterdir()]


def test_a_raw_function_is_refused_by_its_name(tmp_path):
    with pytest.raises(CannotStep, match=r"'cumsum.*not known to treat each time step alone"):
        export(raw_function(), tmp_path / "model" / "1")


FUNCTIONS = {
    "sum_over_time": (lambda x: keras.ops.sum(x, axis=1, keepdims=True), "sum", "axis 1, which is the time axis"),
    "sum_over_all": (lambda x: x - keras.ops.sum(x), "sum", "axis 1, which is the time axis"),
    "maximum_over_the_batch": (lambda x: keras.ops.max(x, axis=0, keepdims=True), "max", "axis 0, which is the batch"),
    "new_time_axis": (lambda x: keras.ops.squeeze(keras.ops.expand_dims(x, 1), 1), "expand_dims", "the time axis"),
    "later_steps": (lambda x: x[:, 1:], "get_item", "takes apart the time axis"),
    "every_other_step": (lambda x: x[:, ::2, ...], "get_item", "takes apart the time axis"),
    "constant_by_time": (lambda x: x * np.ones((6, 1), "f4"), "multiply", "may differ from one time step to the next"),
}


@pytest.mark.parametrize(("function", "name", "reason"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_mixes_time_steps_or_rows_is_refused_by_name_and_reason(function, name, reason, tmp_path):
    entry = keras.Input((6, 4))
    with pytest.raises(CannotStep, match=rf"layer '{name}.*{reason}"):
        export(keras.Model(entry, layers.LSTM(4)(function(entry))), tmp_path / "model" / "1")


def test_a_layer_of_a_nested_model_is_refused_by_name(tmp_path):
    inner = keras.Sequential([keras.Input(READINGS), layers.Conv1D(2, 3, name=NAME)])
    with pytest.raises(CannotStep, match=NAME):
        export(rnn(inner), tmp_path / "model" / "1")


def test_a_model_without_a_known_input_is_refused(tmp_path):
    with pytest.raises(ExportError, match="expected a Sequential or functional Keras model whose input shape is known"):
        export(keras.Sequential([layers.LSTM(4)]), tmp_path / "model" / "1")


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_a_subclassed_model_is_not_told_to_be_called_when_it_has_been(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(ExportError, match="got Subclassed; its layers cannot be followed through its own call"):
        export(model, tmp_path / "model" / "1")


def test_convolutions_without_recurrent_layers_that_cannot_be_stepped_are_served_whole(tmp_path, quick_verification):
    stack = layers.Conv1D(4, 3, padding="causal"), layers.GlobalMaxPooling1D(), layers.Dense(1)
    out = export(keras.Sequential([keras.Input((8, 3)), *stack]), tmp_path / "model" / "1")
    assert {*json.loads((out / "assets.extra" / "contract.json").read_text())["signatures"]} == {"serving_default"}


@pytest.mark.parametrize("version", ["0", "-1", "one", "1.5", "²", "١"])
def test_a_version_is_a_positive_whole_number(version, tmp_path):
    with pytest.raises(ExportError, match="positive whole number as VERSION"):
        export(rnn(), tmp_path / "model" / version)


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(ExportError, match=r"model: expected a folder that can be written to; File exists"):
        export(rnn(), tmp_path / "model" / "1")


def test_a_version_that_exists_is_not_overwritten(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("mine")
    with pytest.raises(ExportError, match="does not exist yet"):
        export(rnn(), tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "mine"


def test_two_exports_of_one_version_do_not_meet(tmp_path):
    (tmp_path / "exporting-1").mkdir()
    with pytest.raises(ExportError, match="another export"):
        export(rnn(), tmp_path / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["exporting-1"]


def test_a_description_of_a_tensor_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ExportError, match="description of 'temprature'"):
        export(rnn(), tmp_path / "1", Description(tensors={"temprature": Meaning()}))


def test_a_description_names_every_axis(tmp_path):
    model = keras.Sequential([keras.Input(READINGS, name="readings"), layers.LSTM(4)])
    with pytest.raises(ExportError, match="expected 1 axes after batch and time, got 2"):
        export(model, tmp_path / "1", Description(tensors={"readings": Meaning(axes={"a": "", "b": ""})}))


def test_only_the_steps_are_called_time(tmp_path):
    model = keras.Sequential([keras.Input(READINGS, name="readings"), layers.LSTM(4)])
    with pytest.raises(ExportError, match="expected another name than 'time' for an axis after time"):
        export(model, tmp_path / "1", Description(tensors={"readings": Meaning(axes={"time": ""})}))


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


class Exchanged(walk.Step):
    """A step that hands out h where c belongs."""

    def remembering(self, layer, sequence, mask):
        output = super().remembering(layer, sequence, mask)
        names = list(self.new_states)
        self.new_states = dict(zip(names, reversed(self.new_states.values()), strict=True))
        return output


class Endless(walk.Scan):
    """A scan that runs every row to the end of the chunk."""

    def __init__(self, memories, states, lengths):
        super().__init__(memories, states, lengths * 0 + 1000)


@pytest.mark.parametrize(("walk_name", "fault", "signature"), [("Step", Exchanged, "step"), ("Scan", Endless, "scan")])
def test_an_export_that_answers_differently_from_keras_fails_and_leaves_nothing(
    walk_name, fault, signature, tmp_path, monkeypatch, quick_verification
):
    monkeypatch.setattr(f"sluice.export.signatures.{walk_name}", fault)
    with pytest.raises(ExportError, match=f"signature '{signature}', output 'lstm.*difference of"):
        export(rnn(), tmp_path / "new" / "model" / "1")
    assert not [*tmp_path.iterdir()]


def yes(given: dict) -> dict:
    return {"word": tf.fill(tf.shape(given["readings"])[:1], "ja, ähem")}


def exported_saying(word: str, out: Path) -> Path:
    call = Call(
        "serving_default", {"readings": np.zeros((2, 4), np.float32)}, {"word": np.array([word.encode()] * 2)}, {}
    )
    endpoints = {"serving_default": (yes, {"readings": tf.TensorSpec([None, 4], "float32", "readings")})}
    return export_endpoints(keras.Sequential([keras.Input((4,)), layers.Dense(1)]), endpoints, {}, out, [call])


def test_a_text_is_compared_letter_by_letter(tmp_path, quick_verification):
    exported_saying("ja, ähem", tmp_path / "1")
    with pytest.raises(ExportError, match=r"signature 'serving_default', output 'word'.*difference of inf"):
        exported_saying("ja, ahem", tmp_path / "2")
    assert [folder.name for folder in tmp_path.iterdir()] == ["1"]


def test_a_folder_that_tensorflow_serving_could_not_load_fails(tmp_path):
    np.savez(tmp_path / "calls.npz")
    with pytest.raises(ExportError, match=r"cannot be loaded and run as TensorFlow Serving does: .*SavedModel"):
        run_replay(tmp_path, tmp_path / "calls.npz", tmp_path / "answers.npz")


def test_a_file_that_is_no_keras_model_is_refused(tmp_path):
    file = tmp_path / "model.keras"
    file.write_text("not a model")
    with pytest.raises(ExportError, match=r"expected a Keras model file.* zip file; it is none"):
        export_file(file, tmp_path / "model" / "1")


@pytest.mark.parametrize("example", [[1.0], {"a": [1.0]}])
def test_an_example_has_one_row_of_each_input_by_name(example, tmp_path):
    entries = [keras.Input((1,), name=name) for name in "ab"]
    with pytest.raises(ExportError, match=r"one row of each input, by name \(a, b\)"):
        export(keras.Model(entries, layers.Add()(entries)), tmp_path / "1", Description(example=example))
