"""What cannot be exported is refused by name and reason, and leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from sluice.export import (
    Call,
    CannotStep,
    ExportError,
    export,
    export_endpoints,
    walk,
)
from sluice.export.imports import load
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


@keras.saving.register_keras_serializable("refusals")
class RandomStart(layers.SimpleRNNCell):
    def get_initial_state(self, batch_size=None):
        return [keras.random.normal((batch_size, self.units))]


@keras.saving.register_keras_serializable("refusals")
class OwnLoop(layers.SimpleRNN):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(keras.ops.flip(sequences, axis=1), initial_state, mask, training)


@keras.saving.register_keras_serializable("refusals")
class Gate(layers.Layer):
    """A layer of one's own that takes a second tensor by keyword."""

    def call(self, inputs, gate=None):
        return inputs * keras.ops.expand_dims(gate, -1)


@keras.saving.register_keras_serializable("refusals")
class Shaken(layers.Layer):
    """Dropout that also works in `predict`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs):
        return self.dropout(inputs, training=True)


def gated() -> keras.Model:
    entry, gate = keras.Input(READINGS), keras.Input((None,))
    return keras.Model([entry, gate], layers.LSTM(4)(Gate(name=NAME)(entry, gate=gate)))


def masked_by(make: Callable[[keras.KerasTensor], Any]) -> keras.Model:
    entry = keras.Input((5, 4))
    return keras.Model(entry, layers.LSTM(4, name=NAME)(entry, mask=make(entry)))


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
    "mask_from_last_step": (
        lambda: masked_by(lambda entry: layers.GRU(1)(entry) > 0),
        "its mask has no time axis that comes with the request",
    ),
    "constant_mask": (
        lambda: masked_by(lambda entry: np.ones((1, 5), bool)),
        "its mask has no time axis that comes with the request",
    ),
    "tensor_by_keyword": (gated, "not known to treat each time step alone"),
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


# What Keras does not read back: a class that is not registered, and code that is not safe.
ONLY_IN_MEMORY = {"convolution_of_ones_own", "lambda"}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("way", ["memory", "file"])
def test_a_layer_that_cannot_be_stepped_is_refused_by_name_and_reason(case, way, tmp_path):
    build, reason = REFUSED[case]
    model = build()
    if way == "file" and case not in ONLY_IN_MEMORY:
        model = read_back(model, tmp_path)
    with pytest.raises(CannotStep) as refused:
        export(model, tmp_path / "model" / "1", steps=True)
    assert refused.value.layer == NAME
    assert reason in refused.value.reason
    assert f"layer '{NAME}'" in str(refused.value)
    assert not [*tmp_path.iterdir()]


def read_back(model: keras.Model, folder: Path) -> keras.Model:
    model.save(file := folder / "model.keras")
    loaded = load(file)
    file.unlink()
    return loaded


def test_a_raw_function_is_refused_by_its_name(tmp_path):
    with pytest.raises(CannotStep, match=r"'cumsum.*not known to treat each time step alone"):
        export(raw_function(), tmp_path / "model" / "1", steps=True)


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
    model = keras.Model(entry, layers.LSTM(4)(function(entry)))
    for each in (model, read_back(model, tmp_path)):
        with pytest.raises(CannotStep, match=rf"layer '{name}.*{reason}"):
            export(each, tmp_path / "model" / "1", steps=True)


def test_a_layer_of_a_nested_model_is_refused_by_name(tmp_path):
    inner = keras.Sequential([keras.Input(READINGS), layers.Conv1D(2, 3, name=NAME)])
    with pytest.raises(CannotStep, match=NAME):
        export(rnn(inner), tmp_path / "model" / "1", steps=True)


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


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800"])
def test_a_name_that_cannot_be_written_is_refused_in_one_line(name, tmp_path):
    entry = keras.Input((4,), name=name)
    with pytest.raises(ExportError, match="expected a name of one printable character or more") as refused:
        export(keras.Model(entry, layers.Dense(1)(entry)), tmp_path / "model" / "1")
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("before", [[], [layers.GRU(4)]], ids=["rows", "after_a_recurrent_layer"])
def test_a_layer_that_draws_random_numbers_in_predict_is_refused_by_name(before, tmp_path):
    entry = keras.Input((4,) if not before else READINGS)
    hidden = entry
    for layer in before:
        hidden = layer(hidden)
    with pytest.raises(ExportError, match=rf"layer '{NAME}' \(Shaken\): .* it draws random numbers even in `predict`"):
        export(keras.Model(entry, Shaken(name=NAME)(hidden)), tmp_path / "model" / "1")


class Fails(layers.Layer):
    """A layer of one's own that TensorFlow's graphs do not take."""

    def call(self, inputs):
        return inputs * float(keras.ops.sum(inputs))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def test_what_a_model_s_own_code_raises_is_the_reason_in_one_line(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Fails()])
    with pytest.raises(ExportError, match="the model cannot be written as a SavedModel: ") as refused:
        export(model, tmp_path / "model" / "1")
    assert "\n" not in str(refused.value)
    assert not [*tmp_path.iterdir()]
