"""Small recurrent models, one or more for each feature that the exporter takes."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

STEPS = 8
TRAINED_ROWS = 10


@keras.saving.register_keras_serializable("tests")
class Tally(layers.Layer):
    """A cell that starts at one half, and keeps a matrix beside a vector; its output is neither."""

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [units, units]

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform")
        self.built = True

    def get_initial_state(self, batch_size=None):
        return [ops.full((batch_size, self.units), 0.5), ops.zeros((batch_size, 3, self.units))]

    def call(self, inputs, states):
        vector, matrix = states
        vector = ops.tanh(inputs @ self.kernel + 0.5 * vector)
        rates = ops.reshape(ops.cast([0.0, 0.25, 0.5], vector.dtype), (1, 3, 1))
        matrix = rates * matrix + ops.expand_dims(vector, 1)
        return ops.sum(matrix, axis=1) - vector, [vector, matrix]

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tests")
class Ramp(layers.SimpleRNNCell):
    """A cell whose state starts differently in each element."""

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, 1)) * ops.arange(self.units, dtype="float32")]


@keras.saving.register_keras_serializable("tests")
class Tallies(layers.RNN):
    """A recurrent layer of one's own that leaves it to Keras how its cell runs."""

    def __init__(self, units: int, **kwargs):
        super().__init__(Tally(units), **kwargs)

    def get_config(self):
        return {"units": self.cell.units, "name": self.name, "return_sequences": self.return_sequences}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def sequential(*stack: keras.Layer, shape: tuple[int | None, ...] = (None, 3), **entry) -> keras.Model:
    return keras.Sequential([keras.Input(shape, **entry), *stack])


def simple_rnn() -> keras.Model:
    return sequential(layers.SimpleRNN(4, return_sequences=True))


def gru(reset_after: bool) -> keras.Model:
    return sequential(
        layers.GRU(4, return_sequences=True, reset_after=reset_after),
        layers.Dense(2, activation="softmax", name="classes"),
        name="readings",
    )


def unrolled_lstm() -> keras.Model:
    return sequential(layers.LSTM(4, return_sequences=True, unroll=True, recurrent_dropout=0.3), shape=(STEPS, 3))


def stateful_grus() -> keras.Model:
    """Two GRUs behind a normalisation, trained with a running state at a fixed batch size."""
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(TRAINED_ROWS, None, 3), name="readings"),
            layers.LayerNormalization(),
            layers.GRU(5, stateful=True, return_sequences=True, name="lower"),
            layers.Dropout(0.5),
            layers.GRU(4, stateful=True, return_sequences=True, name="upper"),
            layers.Dense(1, name="level"),
        ]
    )
    random = np.random.default_rng(1)
    model.compile("sgd", "mse")
    model.fit(
        random.normal(size=(TRAINED_ROWS, 5, 3)),
        random.normal(size=(TRAINED_ROWS, 5, 1)),
        batch_size=TRAINED_ROWS,
        shuffle=False,
        verbose=0,
    )
    return model


def last_step() -> keras.Model:
    return sequential(layers.LSTM(4), layers.Dense(2, name="verdict"))


def several_months_ahead() -> keras.Model:
    return sequential(
        layers.GRU(4),
        layers.RepeatVector(5),
        layers.GRU(4, return_sequences=True),
        layers.TimeDistributed(layers.Dense(1), name="outlook"),
    )


def words() -> keras.Model:
    embedding = layers.Embedding(30, 4)
    return sequential(embedding, layers.GRU(4, return_sequences=True), shape=(None,), dtype="int32", name="words")


def pictures() -> keras.Model:
    frame = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten()])
    return sequential(layers.TimeDistributed(frame), layers.LSTM(4, return_sequences=True), shape=(None, 6, 6, 1))


def skip_connection() -> keras.Model:
    entry = keras.Input((None, 4), name="readings")
    hidden = layers.BatchNormalization(axis=2)(layers.LSTM(4, return_sequences=True)(entry))
    joined = layers.Concatenate(axis=2)([layers.Add()([entry, hidden]), hidden])
    every = layers.PReLU(shared_axes=[1], alpha_initializer="random_normal", name="every")(joined)
    last = layers.Dense(2, name="last")(layers.SimpleRNN(3)(joined))
    return keras.Model(entry, {"b": every, "a": last})


def nested() -> keras.Model:
    inner = keras.Sequential(
        [keras.Input((7, 3)), layers.Rescaling(0.5), layers.LSTM(4, return_sequences=True, name="lstm")], name="inner"
    )
    return sequential(inner, layers.LSTM(3, return_sequences=True, name="lstm"), shape=(7, 3))


def shared_lstm() -> keras.Model:
    entry = keras.Input((None, 4), name="readings")
    lstm = layers.LSTM(4, return_sequences=True, name="lstm")
    return keras.Model(entry, layers.Dense(1, name="level")(lstm(lstm(entry))))


def shared_twins() -> keras.Model:
    """One nested model for two sequences, each with a state of its own."""
    left, right = (keras.Input((None, 3), name=name) for name in ("left", "right"))
    tower = keras.Sequential([keras.Input((None, 3)), layers.GRU(4, return_sequences=True), layers.Dense(2)])
    return keras.Model([left, right], layers.Subtract(name="distance")([tower(left), tower(right)]))


def custom_cell() -> keras.Model:
    return sequential(
        layers.RNN(Tally(4), return_sequences=True), Tallies(3, return_sequences=True, name="tallies"), layers.Dense(2)
    )


def stacked_cells() -> keras.Model:
    cells = layers.StackedRNNCells([layers.LSTMCell(4), Tally(3), layers.GRUCell(4)])
    return sequential(layers.RNN(cells, return_sequences=True), layers.RNN(Ramp(2)))


def stateful_custom_cell() -> keras.Model:
    rnn = layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)], stateful=True, return_sequences=True)
    return keras.Sequential([keras.Input(batch_shape=(TRAINED_ROWS, None, 3)), rnn])


def masked_stack() -> keras.Model:
    return sequential(
        layers.Masking(),
        layers.LSTM(4, return_sequences=True),
        layers.Dense(3),
        layers.LayerNormalization(),
        layers.TimeDistributed(layers.Dense(3)),
        layers.RNN(Tally(4), return_sequences=True),
        layers.GRU(3, return_sequences=True),
        layers.Dense(1),
    )


def masked_last_step() -> keras.Model:
    stack = layers.SimpleRNN(4, return_sequences=True, unroll=True), layers.LSTM(4), layers.Dense(2)
    return sequential(layers.Masking(0.25), *stack, shape=(STEPS, 3))


def zeros_for_masked() -> keras.Model:
    first = layers.RNN(Tally(4), return_sequences=True, zero_output_for_mask=True)
    return sequential(layers.Masking(), first, layers.GRU(3, zero_output_for_mask=True))


def masked_words() -> keras.Model:
    """The masks of two branches are joined by Keras's own rules for Concatenate and Add."""
    entry = keras.Input((None,), name="words")
    embedded = layers.Embedding(4, 3, mask_zero=True)(entry)
    hidden = layers.LSTM(3, return_sequences=True)(embedded)
    wide = layers.Concatenate()([embedded, hidden])
    return keras.Model(entry, layers.Dense(2, name="mood")(layers.GRU(3)(layers.Add()([wide, wide]))))


def masked_nested() -> keras.Model:
    """The mask leaves the inner model with its tensor, and goes on so: the outer graph does not know of it."""
    inner = sequential(layers.Masking(), layers.LSTM(4, return_sequences=True))
    frames = layers.TimeDistributed(layers.Dense(3))
    return sequential(inner, layers.LayerNormalization(), frames, layers.RNN(Tally(3), return_sequences=True))


def given_mask() -> keras.Model:
    """A mask computed by functions and given to a layer by hand."""
    entry = keras.Input((None, 3), name="readings")
    wanted = ops.any(ops.greater(entry, 0.5), axis=-1)
    return keras.Model(entry, layers.LSTM(4, return_sequences=True, name="level")(entry, mask=wanted))


def masks_as_inputs() -> keras.Model:
    """Masks of two shapes that come with the request, by keyword, to layers and to a nested model."""
    entry = keras.Input((None, 3), name="readings")
    known, valid = keras.Input((None,), dtype="bool", name="known"), keras.Input((None, 1), dtype="int32", name="valid")
    hidden = layers.LSTM(4, return_sequences=True)(mask=known, sequences=entry)
    inside = keras.Input((None, 4))
    inner = keras.Model(inside, layers.GRU(3, return_sequences=True)(layers.Dense(3)(inside)))
    hidden = layers.TimeDistributed(layers.Dense(3))(inner(hidden, mask=valid), mask=known)
    last = layers.GRU(2, name="last")(hidden, mask=valid)
    return keras.Model([entry, known, valid], [layers.Dense(2, name="each")(inputs=hidden), last])


def layers_as_if_trained() -> keras.Model:
    """`predict` runs every layer as it predicts, also those that are called with training=True."""
    entry = keras.Input((None, 3), name="readings")
    noisy = layers.Dropout(0.5)(layers.GaussianNoise(0.5)(entry, training=True), training=True)
    hidden = layers.GRU(4, return_sequences=True, dropout=0.5)(noisy, training=True)
    hidden = layers.BatchNormalization(name="each")(hidden, training=True)
    return keras.Model(entry, [hidden, layers.Dropout(0.5, name="last")(layers.GRU(2)(hidden), training=True)])


def named_as_people_do() -> keras.Model:
    """Names that Keras takes, and that neither a graph's scopes nor Python's arguments do."""
    entry, other = keras.Input((None, 2), name="sea temp"), keras.Input((None, 1), name="x:0")
    hidden = layers.GRU(3, return_sequences=True, name="Größe")(layers.Concatenate(name="-")([entry, other]))
    return keras.Model([entry, other], layers.Dense(2, name="Raumtemperatur_°C")(hidden), name="Wetter morgen")


def causal_convolutions() -> keras.Model:
    entry = keras.Input((None, 3), name="readings")
    hidden = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")(entry)
    hidden = layers.LSTM(4, return_sequences=True)(hidden)
    hidden = layers.Conv1D(4, 2, padding="causal", groups=2)(layers.SeparableConv1D(4, 1)(hidden))
    return keras.Model(entry, [layers.Conv1D(2, 1, name="each")(hidden), layers.GRU(2, name="last")(hidden)])


def convolutions_alone() -> keras.Model:
    """A temporal convolutional network: no recurrent layer, shared weights, residual connections."""
    entry = keras.Input((None, 3), name="readings")
    hidden = layers.Dense(4)(entry)
    shared = layers.Conv1D(4, 2, padding="causal", name="shared")
    for dilation in (1, 2, 4):
        dilated = layers.Conv1D(4, 3, padding="causal", dilation_rate=dilation, activation="relu")(hidden)
        hidden = layers.Add()([hidden, shared(dilated)])
    return keras.Model(entry, layers.Dense(1, name="level")(hidden))


def masked_convolution() -> keras.Model:
    """A convolution sees the zeros of masked steps, and takes the mask away from what follows."""
    return sequential(layers.Masking(0.25), layers.Conv1D(4, 3, padding="causal"), layers.GRU(4, return_sequences=True))


def several_sequences() -> keras.Model:
    readings = keras.Input((None, 3), name="readings")
    words = keras.Input((None,), dtype="int32", name="words")
    hidden = layers.GRU(4, return_sequences=True)(layers.Concatenate()([readings, layers.Embedding(30, 2)(words)]))
    outputs = {"risk": layers.Dense(1, name="risk")(hidden), "end": layers.LSTM(2, name="end")(hidden)}
    return keras.Model({"readings": readings, "words": words}, outputs)


def static_input() -> keras.Model:
    """What belongs to the row meets each time step, meets the last one, and is an output by itself."""
    readings, person = keras.Input((None, 3), name="readings"), keras.Input((4,), name="person")
    about = layers.Dense(4)(layers.BatchNormalization()(person))
    hidden = layers.LSTM(4, return_sequences=True)(layers.Add()([layers.Dense(4)(readings), about]))
    last = layers.Concatenate()([layers.GRU(3)(hidden), about])
    outputs = [layers.Dense(2, name="each")(hidden), layers.Dense(2, name="end")(last)]
    return keras.Model([readings, person], [*outputs, layers.Dense(1, name="prior")(about)])


def static_picture() -> keras.Model:
    """A branch without a time axis takes any layer."""
    readings, scan = keras.Input((None, 3), name="readings"), keras.Input((6, 6, 1), name="lengths")
    about = layers.Flatten()(layers.MaxPooling2D()(layers.Conv2D(2, 3)(scan)))
    about = layers.SimpleRNN(3)(layers.RepeatVector(3)(about))
    last = layers.LSTM(4)(readings)
    return keras.Model([readings, scan], layers.Dense(1, name="risk")(layers.Concatenate()([about, last])))


def functions() -> keras.Model:
    entry = keras.Input((None, 4), name="readings")
    hidden = layers.GRU(3, return_sequences=True)(ops.tanh(entry[:, :, :2] * 2.0 + np.float32([0.5, 1.0])))
    centred = hidden - ops.mean(hidden, axis=-1, keepdims=True)
    parts = [centred, entry[..., 2:], entry[..., ::-1]]
    return keras.Model(entry, layers.Identity(name="level")(ops.concatenate(parts, axis=2)))


def of_precision(policy: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return sequential(
            layers.Masking(),
            layers.LSTM(8, return_sequences=True),
            layers.RNN([layers.GRUCell(4), Tally(4)], return_sequences=True),
            layers.Dense(2),
            layers.Conv1D(2, 3, padding="causal"),
            layers.Dense(1, dtype="float32" if policy == "mixed_bfloat16" else None),
        )
    finally:
        keras.config.set_dtype_policy(before)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "simple_rnn": simple_rnn,
    "gru_reset_after": lambda: gru(reset_after=True),
    "gru_reset_before": lambda: gru(reset_after=False),
    "unrolled_lstm": unrolled_lstm,
    "stateful_grus": stateful_grus,
    "last_step": last_step,
    "several_months_ahead": several_months_ahead,
    "words": words,
    "pictures": pictures,
    "skip_connection": skip_connection,
    "nested": nested,
    "shared_lstm": shared_lstm,
    "shared_twins": shared_twins,
    "custom_cell": custom_cell,
    "stacked_cells": stacked_cells,
    "stateful_custom_cell": stateful_custom_cell,
    "masked_stack": masked_stack,
    "masked_last_step": masked_last_step,
    "zeros_for_masked": zeros_for_masked,
    "masked_words": masked_words,
    "masked_nested": masked_nested,
    "given_mask": given_mask,
    "masks_as_inputs": masks_as_inputs,
    "layers_as_if_trained": layers_as_if_trained,
    "named_as_people_do": named_as_people_do,
    "causal_convolutions": causal_convolutions,
    "convolutions_alone": convolutions_alone,
    "masked_convolution": masked_convolution,
    "several_sequences": several_sequences,
    "static_input": static_input,
    "static_picture": static_picture,
    "functions": functions,
    "mixed_float16": lambda: of_precision("mixed_float16"),
    "mixed_bfloat16": lambda: of_precision("mixed_bfloat16"),
}
