"""What is exported answers as Keras does, loaded as TensorFlow Serving does: steps, scans and whole sequences."""

import json
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from sluice.export import export
from sluice.export.contract import UNDESCRIBED, contract
from sluice.export.imports import load
from sluice.export.plan import Plan, plan_for
from tests.export.examples import MODELS, STEPS

ROWS = 3
# What these models are made of is in others, too.
DEEP = {"simple_rnn", "gru_reset_after", "last_step", "words", "pictures", "mixed_float16"}
MASKED_VALUES = {"masked_last_step": 0.25, "masked_convolution": 0.25}
ALLOWED = {"mixed_float16": 2**-7, "mixed_bfloat16": 2**-4}

pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer '(conv1d|functional):UserWarning"
)  # Keras says that it drops the mask

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """An exported model, inputs `x` by name, and by output what Keras answers after each step, [rows, steps, ...].

    `x` is [rows, steps, ...] for inputs that are `timed`, [rows, ...] for the others.
    """

    served: Any
    x: Arrays
    y: Arrays
    timed: frozenset[str]
    allowed: float

    @property
    def signatures(self) -> dict[str, Any]:
        return self.served.contract["signatures"]

    @property
    def steps(self) -> int:
        return next(iter(self.y.values())).shape[1]

    def at(self, rows: Any, steps: Any) -> Arrays:
        return {name: x[rows, steps] if name in self.timed else x[rows] for name, x in self.x.items()}

    def initial_states(self, rows: int) -> Arrays:
        states = self.signatures["step"]["states"]
        dtypes = {state["input"]: self.served.dtype("step", state["input"]) for state in states}
        return {
            state["input"]: np.broadcast_to(
                np.asarray(state["initial"], dtypes[state["input"]]), (rows, *state["shape"])
            )
            for state in states
        }

    def states_in(self, answer: Arrays) -> Arrays:
        return {state["input"]: answer[state["output"]] for state in self.signatures["step"]["states"]}

    def has_time(self, output: str) -> bool:
        """Whether a scan gives the output at each step, not only at the last."""
        axes = self.signatures["scan"]["outputs"][output]["axes"]
        return len(axes) > 1 and axes[1]["name"] == "time"

    def assert_close(self, answer: np.ndarray, expected: np.ndarray) -> None:
        expected = expected.astype(np.float64)
        np.testing.assert_array_less(np.abs(answer - expected), self.allowed * np.maximum(1, np.abs(expected)))


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.deep] if name in DEEP else []) for name in MODELS]
)
def case(request, tmp_path_factory, serve, quick_verification) -> Case:
    keras.utils.set_random_seed(3)
    model = MODELS[request.param]()
    plan, folder = plan_for(model), tmp_path_factory.mktemp("models") / request.param
    model.save(file := folder.with_suffix(".keras"))
    served = serve(export(load(file), folder / "1"))
    assert contract(plan, UNDESCRIBED) == served.contract  # a file and the model in memory are judged alike
    timed = frozenset(name for name, flow in plan.inputs.items() if flow.timed)
    x = {name: inputs(name, tensor, name in timed) for name, tensor in entries(model)}
    for name in timed:
        x[name][np.random.default_rng(8).random(x[name].shape[:2]) < 0.3] = MASKED_VALUES.get(request.param, 0)
    return Case(served, x, after_each_step(model, plan, x, timed), timed, ALLOWED.get(request.param, 1e-5))


def entries(model: keras.Model) -> list[tuple[str, keras.KerasTensor]]:
    return [(tensor._keras_history.operation.name, tensor) for tensor in model.inputs]


def inputs(name: str, tensor: keras.KerasTensor, timed: bool) -> np.ndarray:
    random = np.random.default_rng(5)
    _, *sizes = tensor.shape
    shape = (ROWS, sizes[0] or STEPS, *sizes[1:]) if timed else (ROWS, *sizes)
    if tensor.dtype == "int32" or name == "words":
        return random.integers(0, 30 if tensor.dtype == "int32" else 4, shape).astype(tensor.dtype)
    return random.normal(size=shape).astype("f4")


def after_each_step(model: keras.Model, plan: Plan, x: Arrays, timed: frozenset[str]) -> Arrays:
    whole, planned = keras_answers(model, x), plan.outputs
    if all(planned[name].timed for name in whole):
        return whole
    steps = max(x[name].shape[1] for name in timed)
    prefixes = [
        keras_answers(model, {name: each[:, : t + 1] if name in timed else each for name, each in x.items()})
        for t in range(steps)
    ]
    return {
        name: y if planned[name].timed else np.stack([prefix[name] for prefix in prefixes], axis=1)
        for name, y in whole.items()
    }


def keras_answers(model: keras.Model, x: Arrays) -> Arrays:
    """Keras's own answers by output layer; a stateful model runs from its initial state at its own batch size."""
    rows = model.inputs[0].shape[0] or ROWS
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            for state in keras.tree.flatten(layer.states):  # Keras 3.15 cannot reset nested states itself
                state.assign(keras.ops.zeros_like(state))
    given = [np.resize(x[name], (rows, *x[name].shape[1:])) for name, _ in entries(model)]
    graph = getattr(model, "_functional", model)
    answers = keras.tree.flatten(model(keras.tree.pack_sequence_as(graph._inputs_struct, given), training=False))
    return {
        name: keras.ops.convert_to_numpy(answer)[:ROWS]
        for name, answer in zip(graph.output_names, answers, strict=True)
    }


@pytest.mark.parametrize(("scans", "seed"), [(0, 0), (1, 1), (0.5, 2), (0.5, 3)])
def test_steps_and_scans_in_any_order_answer_as_keras_on_the_whole_sequence(case, scans, seed):
    random = np.random.default_rng(seed)
    done, states = np.zeros(ROWS, int), case.initial_states(ROWS)
    while done.max() < case.steps:
        run = scan if random.random() < scans else step
        states, done = run(case, random, states, done)


def step(case: Case, random: np.random.Generator, states: Arrays, done: np.ndarray) -> tuple[Arrays, np.ndarray]:
    rows = np.arange(ROWS)
    answer = case.served.call("step", case.at(rows, done) | states)
    for name, y in case.y.items():
        case.assert_close(answer[name], y[rows, done])
    return case.states_in(answer), done + 1


def scan(case: Case, random: np.random.Generator, states: Arrays, done: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """A chunk of random lengths, one of them perhaps 0; beyond a row's length stands noise that must not matter."""
    lengths = np.minimum(random.integers(0, 5, ROWS), case.steps - done)
    answer = case.served.call("scan", chunk(case, random, done, lengths) | {lengths_name(case): lengths} | states)
    for name, y in case.y.items():
        for row, (start, length) in enumerate(zip(done, lengths, strict=True)):
            if length and case.has_time(name):
                case.assert_close(answer[name][row, :length], y[row, start : start + length])
            elif length:
                case.assert_close(answer[name][row], y[row, start + length - 1])
    return case.states_in(answer), done + lengths


def chunk(case: Case, random: np.random.Generator, done: np.ndarray, lengths: np.ndarray) -> Arrays:
    rows = np.repeat(np.arange(ROWS)[:, None], 4, axis=1)
    every = case.at(rows, np.minimum(done[:, None] + np.arange(4), case.steps - 1))
    noise = {name: random.permutation(x.reshape(-1)).reshape(x.shape) for name, x in every.items()}
    within = np.arange(4) < lengths[:, None]
    return {name: np.where(within.reshape(ROWS, 4, *[1] * (x.ndim - 2)), x, noise[name]) for name, x in every.items()}


def lengths_name(case: Case) -> str:
    return case.signatures["scan"]["lengths"]


def test_a_row_of_length_0_keeps_its_state_bit_for_bit(case):
    random = np.random.default_rng(4)
    states = {
        name: random.normal(size=state.shape).astype(state.dtype) for name, state in case.initial_states(ROWS).items()
    }
    given = chunk(case, random, np.zeros(ROWS, int), np.zeros(ROWS, int))
    answer = case.served.call("scan", given | {lengths_name(case): [0] * ROWS} | states)
    for name, state in case.states_in(answer).items():
        np.testing.assert_array_equal(state, states[name])


@pytest.mark.parametrize("rows", [1, ROWS])
def test_the_default_signature_starts_from_the_initial_state_at_every_call_and_batch_size(case, rows):
    for _ in range(2):
        answer = case.served.call("serving_default", {name: x[:rows] for name, x in case.x.items()})
        outputs = case.signatures["serving_default"]["outputs"]
        for name, y in case.y.items():
            timed = [axis["name"] for axis in outputs[name]["axes"]][1:2] == ["time"]
            case.assert_close(answer[name], y[:rows] if timed else y[:rows, -1])


@pytest.mark.parametrize("seed", [6, 7])
def test_padded_sequences_answer_as_keras_on_each_row_alone(case, seed):
    lengths = np.random.default_rng(seed).integers(1, case.steps, ROWS, endpoint=True)
    for rows in (ROWS, 1):
        answer = case.served.call("sequences", padded(case, lengths[:rows]))
        for name, y in case.y.items():
            for row, length in enumerate(lengths[:rows]):
                actual = answer[name][row, :length] if case.has_time(name) else answer[name][row]
                case.assert_close(actual, y[row, :length] if case.has_time(name) else y[row, length - 1])


def padded(case: Case, lengths: np.ndarray) -> Arrays:
    """One batch as the gateway makes it: rows of these lengths, what the contract says beyond them, and the lengths."""
    said = case.signatures["serving_default"]
    within = np.arange(lengths.max()) < lengths[:, None]
    batch = {name: x[: len(lengths)] for name, x in case.x.items()}
    for name in case.timed:
        row = (1,) * (case.x[name].ndim - 2)
        x = batch[name][:, : lengths.max()]
        batch[name] = np.where(within.reshape(*within.shape, *row), x, np.asarray(said["inputs"][name]["pad"], x.dtype))
    return batch | {said["lengths"]["time"]: lengths.astype(np.int32)}


def test_what_stands_beyond_a_row_s_length_changes_nothing(case):
    lengths = np.array([case.steps, 1, case.steps // 2], np.int32)
    clean = padded(case, lengths)
    noisy = clean | {name: case.x[name] for name in case.timed}
    answers = [case.served.call("sequences", batch) for batch in (clean, noisy)]
    for name in case.y:
        clean_rows, noisy_rows = (
            [y[:length] if case.has_time(name) else y for y, length in zip(answer[name], lengths, strict=True)]
            for answer in answers
        )
        for one, other in zip(clean_rows, noisy_rows, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [1, 3])
def test_every_row_of_the_contract_signature_is_the_same_document(case, schema, rows):
    documents = case.served.call("contract", {"probe": np.zeros(rows, np.int32)})["contract"]
    assert len(documents) == rows
    assert len(set(documents)) == 1
    schema.validate(json.loads(documents[0]))


def test_the_contract_names_exactly_the_tensors_of_the_signatures(case):
    for name, said in case.signatures.items():
        definition = case.served.signatures[said.get("calls", name)]
        states = said.get("states", [])
        lengths = said.get("lengths", {})
        lengths = [lengths] if isinstance(lengths, str) else lengths.values()
        assert {*definition.inputs} == {*said["inputs"], *(state["input"] for state in states), *lengths}
        assert {*definition.outputs} == {*said["outputs"], *(state["output"] for state in states)}


def test_the_contract_states_each_tensor_s_dtype_and_shape(case):
    answer = case.served.call("step", case.at(np.arange(ROWS), np.zeros(ROWS, int)) | case.initial_states(ROWS))
    said = case.signatures["step"]
    for name, tensor in (said["inputs"] | said["outputs"]).items():
        assert case.served.dtype("step", name).name == tensor["dtype"]
    for name, tensor in said["outputs"].items():
        sizes = [axis.get("size") for axis in tensor["axes"]]
        assert len(sizes) == answer[name].ndim
        assert all(size in (None, actual) for size, actual in zip(sizes, answer[name].shape, strict=True))
    for state in said["states"]:
        assert case.served.dtype("step", state["input"]).name == state["dtype"]
        assert answer[state["output"]].dtype.name == state["dtype"]
        assert answer[state["output"]].shape == (ROWS, *state["shape"])


def test_the_example_of_the_contract_runs(case):
    example = case.served.contract["example"]
    batch = {name: np.array([row]) for name, row in example["inputs"].items()}
    assert case.served.call(example["signature"], batch | case.initial_states(1))
