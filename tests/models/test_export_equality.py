"""What is exported answers as Keras does, loaded as TensorFlow Serving does: steps, scans and whole sequences."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
from keras import layers

from models.export import export

ROWS = 3
STEPS = 12
TRAINED_ROWS = 10


def simple_rnn() -> keras.Model:
    return keras.Sequential([keras.Input((None, 3)), layers.SimpleRNN(4, return_sequences=True)])


def gru(reset_after: bool) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, 3), name="readings"),
            layers.GRU(4, return_sequences=True, reset_after=reset_after),
            layers.Dense(2, activation="softmax", name="classes"),
        ]
    )


def unrolled_lstm() -> keras.Model:
    return keras.Sequential(
        [keras.Input((STEPS, 3)), layers.LSTM(4, return_sequences=True, unroll=True, recurrent_dropout=0.3)]
    )


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
    return keras.Sequential([keras.Input((None, 3)), layers.LSTM(4), layers.Dense(2, name="verdict")])


def several_months_ahead() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.GRU(4),
            layers.RepeatVector(5),
            layers.GRU(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(1), name="outlook"),
        ]
    )


def words() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="words"),
            layers.Embedding(30, 4),
            layers.GRU(4, return_sequences=True),
        ]
    )


def pictures() -> keras.Model:
    frame = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten()])
    return keras.Sequential(
        [
            keras.Input((None, 6, 6, 1), name="frames"),
            layers.TimeDistributed(frame),
            layers.LSTM(4, return_sequences=True),
        ]
    )


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
    return keras.Sequential([keras.Input((7, 3)), inner, layers.LSTM(3, return_sequences=True, name="lstm")])


def shared_lstm() -> keras.Model:
    entry = keras.Input((None, 4), name="readings")
    lstm = layers.LSTM(4, return_sequences=True, name="lstm")
    return keras.Model(entry, layers.Dense(1, name="level")(lstm(lstm(entry))))


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
}


@dataclass(frozen=True)
class Case:
    """An exported model, inputs `x` [rows, steps, ...], and by output what Keras answers after each step of them."""

    served: Any
    x: np.ndarray
    y: dict[str, np.ndarray]

    @property
    def signatures(self) -> dict[str, Any]:
        return self.served.contract["signatures"]

    @property
    def entry(self) -> str:
        return next(iter(self.signatures["step"]["inputs"]))

    def zero_states(self, rows: int) -> dict[str, np.ndarray]:
        states = self.signatures["step"]["states"]
        return {state["input"]: np.full((rows, *state["shape"]), state["initial"], state["dtype"]) for state in states}

    def states_in(self, answer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {state["input"]: answer[state["output"]] for state in self.signatures["step"]["states"]}

    def is_timed(self, output: str) -> bool:
        return is_timed(self.served, output)


def is_timed(served: Any, output: str) -> bool:
    return served.contract["signatures"]["scan"]["outputs"][output]["axes"][1]["name"] == "time"


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory, serve, quick_verification) -> Case:
    keras.utils.set_random_seed(3)
    model = MODELS[request.param]()
    served = serve(export(model, tmp_path_factory.mktemp("models") / request.param / "1"))
    x = inputs(model)
    return Case(served, x, {name: after_each_step(model, served, x, name) for name in keras_answers(model, x)})


def inputs(model: keras.Model) -> np.ndarray:
    random = np.random.default_rng(5)
    _, steps, *sizes = model.inputs[0].shape
    shape = (ROWS, steps or STEPS, *sizes)
    return random.integers(0, 30, shape) if model.inputs[0].dtype == "int32" else random.normal(size=shape).astype("f4")


def after_each_step(model: keras.Model, served: Any, x: np.ndarray, output: str) -> np.ndarray:
    if is_timed(served, output):
        return keras_answers(model, x)[output]
    return np.stack([keras_answers(model, x[:, : t + 1])[output] for t in range(x.shape[1])], axis=1)


def keras_answers(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Keras's own answers by output layer; a stateful model runs from zero state at its own batch size."""
    rows = model.inputs[0].shape[0] or len(x)
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    answers = keras.tree.flatten(model(np.resize(x, (rows, *x.shape[1:])), training=False))
    graph = getattr(model, "_functional", model)
    return {name: np.asarray(answer)[: len(x)] for name, answer in zip(graph.output_names, answers, strict=True)}


def assert_close(answer: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_less(np.abs(answer - expected), 1e-5 * np.maximum(1, np.abs(expected)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_and_scans_in_any_order_answer_as_keras_on_the_whole_sequence(case, seed):
    random = np.random.default_rng(seed)
    done, states = np.zeros(ROWS, int), case.zero_states(ROWS)
    while done.max() < case.x.shape[1]:
        run = step if random.random() < 0.5 else scan
        states, done = run(case, random, states, done)


def step(case: Case, random: np.random.Generator, states: dict[str, np.ndarray], done: np.ndarray):
    rows = np.arange(ROWS)
    answer = case.served.call("step", {case.entry: case.x[rows, done]} | states)
    for name, y in case.y.items():
        assert_close(answer[name], y[rows, done])
    return case.states_in(answer), done + 1


def scan(case: Case, random: np.random.Generator, states: dict[str, np.ndarray], done: np.ndarray):
    """A chunk of random lengths, one of them perhaps 0; beyond a row's length stands noise that must not matter."""
    lengths = np.minimum(random.integers(0, 5, ROWS), case.x.shape[1] - done)
    chunk = random.permutation(case.x[:, :4].reshape(-1)).reshape(case.x[:, :4].shape)
    for row, (start, length) in enumerate(zip(done, lengths, strict=True)):
        chunk[row, :length] = case.x[row, start : start + length]
    answer = case.served.call("scan", {case.entry: chunk, "lengths": lengths} | states)
    for name, y in case.y.items():
        for row, (start, length) in enumerate(zip(done, lengths, strict=True)):
            if length and case.is_timed(name):
                assert_close(answer[name][row, :length], y[row, start : start + length])
            elif length:
                assert_close(answer[name][row], y[row, start + length - 1])
    return case.states_in(answer), done + lengths


def test_a_row_of_length_0_keeps_its_state_bit_for_bit(case):
    random = np.random.default_rng(4)
    states = {name: random.normal(size=state.shape).astype("f4") for name, state in case.zero_states(ROWS).items()}
    answer = case.served.call("scan", {case.entry: case.x, "lengths": [0] * ROWS} | states)
    for name, state in case.states_in(answer).items():
        np.testing.assert_array_equal(state, states[name])


@pytest.mark.parametrize("rows", [1, ROWS])
def test_the_default_signature_starts_from_zero_state_at_every_call_and_batch_size(case, rows):
    for _ in range(2):
        answer = case.served.call("serving_default", {case.entry: case.x[:rows]})
        for name, y in case.y.items():
            assert_close(answer[name], y[:rows] if case.is_timed(name) else y[:rows, -1])


@pytest.mark.parametrize("rows", [1, 3])
def test_every_row_of_the_contract_signature_is_the_same_document(case, schema, rows):
    documents = case.served.call("contract", {"probe": np.zeros(rows, np.int32)})["contract"]
    assert len(documents) == rows
    assert len(set(documents)) == 1
    jsonschema.validate(json.loads(documents[0]), schema, cls=jsonschema.Draft202012Validator)


def test_the_contract_names_exactly_the_tensors_of_the_signatures(case):
    for name, said in case.signatures.items():
        definition = case.served.signatures[name]
        states = said.get("states", [])
        lengths = [said["lengths"]] if "lengths" in said else []
        assert {*definition.inputs} == {*said["inputs"], *(state["input"] for state in states), *lengths}
        assert {*definition.outputs} == {*said["outputs"], *(state["output"] for state in states)}


def test_the_contract_states_each_output_s_shape(case):
    answer = case.served.call("serving_default", {case.entry: case.x})
    for name, said in case.signatures["serving_default"]["outputs"].items():
        sizes = [axis.get("size") for axis in said["axes"]]
        assert len(sizes) == answer[name].ndim
        assert all(size in (None, actual) for size, actual in zip(sizes, answer[name].shape, strict=True))


def test_the_example_of_the_contract_runs(case):
    example = case.served.contract["example"]
    batch = {name: np.array([row]) for name, row in example["inputs"].items()}
    assert case.served.call(example["signature"], batch | case.zero_states(1))
