"""Sequence models that cannot be stepped: rows of any lengths together answer as Keras predicts each of them alone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from sluice.export import CannotStep, Description, ExportError, Meaning, export, export_file
from sluice.export.contract import contract
from sluice.export.uneven import planned
from tests.export.examples import sequential
from tests.export.served import Served

LENGTHS = np.array([9, 1, 4, 2, 7], np.int32)

Arrays = dict[str, np.ndarray]

pytestmark = pytest.mark.usefixtures("quick_verification")


def both_ways() -> keras.Model:
    """One layer both ways, and one backwards that starts from what another has seen."""
    entry = keras.Input((None, 3), name="readings")
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(entry)
    last = layers.GRU(3, go_backwards=True)(hidden, initial_state=layers.GRU(3)(entry))
    return keras.Model(entry, [layers.Dense(2, name="each")(hidden), layers.Dense(1, name="end")(last)])


def attention() -> keras.Model:
    """Words, some of which hide themselves, seen all at once; an answer for each, and one for all."""
    entry = keras.Input((None,), dtype="int32", name="words")
    hidden = layers.Embedding(9, 4, mask_zero=True)(entry)
    seen = layers.MultiHeadAttention(2, 2, name="heads")(hidden, hidden)
    hidden = layers.LayerNormalization()(layers.Add()([hidden, seen]))
    whole = layers.Dense(2, name="all")(layers.GlobalAveragePooling1D()(hidden))
    return keras.Model(entry, [layers.Dense(2, name="each")(hidden), whole])


def convolutions() -> keras.Model:
    """What a layer that takes no mask finds behind a row is what Keras puts there."""
    entry = keras.Input((None, 3), name="readings")
    hidden = layers.Dense(3, bias_initializer="ones")(entry)
    for size in (3, 4):
        hidden = layers.Conv1D(3, size, padding="same", bias_initializer="ones", name=f"of_{size}")(hidden)
    both = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    most = layers.GlobalMaxPooling1D()(layers.Activation("relu")(hidden))
    each = layers.Dense(1, name="each")(sequential(layers.Dense(3), both)(hidden))
    return keras.Model(entry, [each, layers.Dense(1, name="most")(most)])


def masks() -> keras.Model:
    """Masks of values, of an input and of a function, beside an input that belongs to the row."""
    entry, person = keras.Input((None, 3), name="readings"), keras.Input((2,), name="person")
    known = keras.Input((None,), dtype="bool", name="known")
    hidden = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True), name="both")(entry, mask=known)
    hidden = layers.Concatenate()([hidden, layers.GRU(2, return_sequences=True)(layers.Masking(0.5)(entry))])
    weights = ops.expand_dims(ops.cast(ops.any(ops.greater(entry, 0), -1), "float32"), -1)
    mean = ops.sum(hidden * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
    answer = layers.Dense(2, name="risk")(layers.Concatenate()([mean, person]))
    return keras.Model({"readings": entry, "known": known, "person": person}, answer)


MODELS: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "both_ways": (both_ways, "both"),
    "attention": (attention, "heads"),
    "convolutions": (convolutions, "of_3"),
    "masks": (masks, "both"),
}


@dataclass(frozen=True)
class Case:
    """A model, the layer for whose sake it is not stepped, what it was exported to, and rows [rows, longest, ...]."""

    model: keras.Model
    reason: str
    served: Served
    x: Arrays

    @property
    def signature(self) -> dict[str, Any]:
        return self.served.contract["signatures"]["serving_default"]

    @property
    def meant(self) -> np.ndarray:
        """The steps that do not hide themselves: what Keras answers at another depends on how many there are."""
        return self.x.get("words", np.ones((len(LENGTHS), LENGTHS.max()))) > 0

    def timed(self, kind: str, name: str) -> bool:
        axes = self.signature[kind][name]["axes"]
        return len(axes) > 1 and axes[1]["name"] == "time"

    def alone(self, row: int) -> Arrays:
        """What Keras answers to one row alone, at its own length."""
        ends = {name: LENGTHS[row] if self.timed("inputs", name) else None for name in self.x}
        given = {name: x[row : row + 1, : ends[name]] for name, x in self.x.items()}
        answers = self.model(given if len(given) > 1 else next(iter(given.values())), training=False)
        graph = getattr(self.model, "_functional", self.model)
        found = map(keras.ops.convert_to_numpy, keras.tree.flatten(answers))
        return dict(zip(graph.output_names, found, strict=True))

    def together(self, x: Arrays) -> Arrays:
        return self.served.call("sequences", x | {self.signature["lengths"]["time"]: LENGTHS})


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory, serve, quick_verification) -> Case:
    keras.utils.set_random_seed(3)
    build, reason = MODELS[request.param]
    model = build()
    served = serve(export(model, tmp_path_factory.mktemp("models") / request.param / "1"))
    inputs = served.contract["signatures"]["serving_default"]["inputs"]
    return Case(model, reason, served, {name: rows(tensor) for name, tensor in inputs.items()})


def rows(tensor: dict[str, Any]) -> np.ndarray:
    random = np.random.default_rng(5)
    shape = (len(LENGTHS), *(axis.get("size", LENGTHS.max()) for axis in tensor["axes"][1:]))
    if tensor["dtype"] == "float32":
        x = random.normal(size=shape).astype("f4")
        x[random.random(shape[:-1]) < 0.3] = 0.5  # which a Masking of 0.5 hides
        return x
    x = random.integers(0, 9 if tensor["dtype"] == "int32" else 2, shape).astype(tensor["dtype"])
    x[:, 0] = 1  # a row that hides itself has no answer
    return x


def test_rows_of_many_lengths_together_answer_as_keras_predicts_each_alone(case):
    answers = case.together(case.x)
    for row, length in enumerate(LENGTHS):
        for name, expected in case.alone(row).items():
            timed = case.timed("outputs", name)
            answer = answers[name][row, :length] if timed else answers[name][row]
            meant = case.meant[row, :length] if timed else slice(None)
            np.testing.assert_allclose(answer[meant], expected[0][meant], rtol=1e-5, atol=1e-5)


def test_what_stands_beyond_a_row_changes_nothing(case):
    beyond = np.arange(LENGTHS.max()) >= LENGTHS[:, None]
    other = {name: x.copy() for name, x in case.x.items()}
    for name in (name for name in other if case.timed("inputs", name)):
        other[name][beyond] = ~other[name][beyond] if other[name].dtype == bool else 7
    answers = [case.together(x) for x in (case.x, other)]
    for name, answer in answers[0].items():
        kept = ~beyond & case.meant if case.timed("outputs", name) else slice(None)
        np.testing.assert_array_equal(answer[kept], answers[1][name][kept])


def test_the_default_signature_takes_rows_of_one_length_as_keras_does(case):
    x = {name: each[:1] for name, each in case.x.items()}
    answers = case.served.call("serving_default", x)
    for name, expected in case.alone(0).items():  # row 0 is as long as the array
        np.testing.assert_allclose(answers[name], expected, rtol=1e-5, atol=1e-5)


def test_the_contract_offers_sequences_and_no_steps(case, schema):
    schema.validate(case.served.contract)
    assert {*case.served.contract["signatures"]} == {"serving_default"}
    assert (case.signature["kind"], case.signature["calls"]) == ("sequences", "sequences")
    assert "scan" not in case.signature
    assert not {"step", "scan"} & {*case.served.signatures}


def test_the_example_of_the_contract_runs(case):
    example = case.served.contract["example"]
    assert case.served.call(example["signature"], {name: [row] for name, row in example["inputs"].items()})


def test_one_line_says_that_there_are_no_sessions_and_which_layer_is_why(case):
    assert planned(case.model).limits.startswith(f"no sessions: layer '{case.reason}' (")
    with pytest.raises(CannotStep, match=rf"layer '{case.reason}'.* or export without steps"):
        planned(case.model, steps=True)


def mean_of_all() -> keras.Model:
    """A classifier so sure of itself that its answers do not show what its layers see."""
    entry = keras.Input((None, 3))
    sure = layers.Dense(2, "softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=1e4, seed=1))
    return keras.Model(entry, sure(ops.mean(layers.LSTM(4, return_sequences=True)(entry), axis=1)))


def two_sequences() -> keras.Model:
    first, beside, second = (keras.Input((None, 3), name=name) for name in ("first", "beside", "second"))
    seen = layers.MultiHeadAttention(1, 2)(layers.Add()([first, beside]), second)
    return keras.Model([first, beside, second], layers.Dense(1)(layers.GlobalAveragePooling1D()(seen)))


def padded_backwards() -> keras.Model:
    return sequential(layers.GRU(2, go_backwards=True, return_sequences=True, name="back"), layers.Dense(1))


def most_of_words() -> keras.Model:
    """Attention of a masked word is spread over the padding, too, and this pooling takes no mask."""
    entry = keras.Input((None,), dtype="int32")
    hidden = layers.Embedding(9, 4, mask_zero=True)(entry)
    seen = layers.MultiHeadAttention(2, 2, name="heads")(hidden, hidden)
    return keras.Model(entry, layers.Dense(2)(layers.GlobalMaxPooling1D(name="most")(layers.Add()([hidden, seen]))))


PADDING_SEEN: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "mean of all": (mean_of_all, "layer 'mean"),
    "pooling": (lambda: sequential(layers.MaxPooling1D(name="pool"), layers.LSTM(2)), "layer 'pool' (MaxPooling1D)"),
    "shorter answers": (lambda: sequential(layers.Conv1D(2, 3, name="conv"), layers.LSTM(2)), "layer 'conv' (Conv1D)"),
    "turned round": (padded_backwards, "layer 'back' (GRU)"),
    "masked steps": (
        most_of_words,
        "layer 'most' (GlobalMaxPooling1D) takes no mask, and sees what layer 'heads' (MultiHeadAttention) gives at",
    ),
    "two sequences": (two_sequences, "'second' may be of another length than 'first'"),
}


@pytest.mark.filterwarnings("ignore:Layer 'most' .* does not support masking")
@pytest.mark.parametrize("name", PADDING_SEEN)
def test_a_model_that_sees_padding_is_served_as_rows_and_its_line_names_the_layer(name):
    build, reason = PADDING_SEEN[name]
    plan = planned(build())
    assert f"; all rows of a request must have one length: {reason}" in plan.limits
    assert contract(plan, Description())["signatures"]["serving_default"]["kind"] == "rows"


def test_rows_of_a_model_that_sees_padding_answer_as_keras_does_at_any_length(tmp_path, serve, caplog):
    model = padded_backwards()
    served = serve(export(model, tmp_path / "1"))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sluice")]
    steps = (
        "no sessions: layer 'back' (GRU) cannot be run one time step at a time: go_backwards=True reads the sequence"
    )
    length = "all rows of a request must have one length: layer 'back' (GRU) sees the padding behind shorter rows"
    assert lines == [f"{steps} from its end; {length}"]
    assert "sequences" not in served.signatures
    [name] = served.contract["example"]["inputs"]
    for steps in (1, 6):
        x = np.random.default_rng(steps).normal(size=(2, steps, 3)).astype("f4")
        [answer] = served.call("serving_default", {name: x}).values()
        np.testing.assert_allclose(answer, model.predict(x, verbose=0), atol=1e-6)


def test_sequences_of_one_size_are_rows():
    both = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")
    plan = planned(sequential(both, layers.Flatten(), layers.Dense(1), shape=(5, 3)))
    assert plan.limits.startswith("no sessions: layer 'both' (Bidirectional)")
    assert "one length" not in plan.limits
    [tensor] = contract(plan, Description())["signatures"]["serving_default"]["inputs"].values()
    assert [axis.get("size") for axis in tensor["axes"]] == [None, 5, 3]


def test_layers_that_treat_each_step_alone_need_no_line():
    plan = planned(sequential(layers.Dense(2)))
    assert (plan.is_ragged, plan.limits) == (True, "")


def test_the_description_of_whole_sequences_is_that_of_their_steps():
    tensors = {"readings": Meaning("three sensors", axes={"sensor": ""})}
    entry = keras.Input((None, 3), name="readings")
    model = keras.Model(entry, layers.Bidirectional(layers.GRU(2))(entry))
    described = Description(time="one second", tensors=tensors, buckets={"time": [8, 16]}, example=[[1, 2, 3]])
    said = contract(planned(model, described), described)
    default = said["signatures"]["serving_default"]
    assert default["inputs"]["readings"]["axes"] == [
        {"name": "batch"},
        {"name": "time", "meaning": "one second", "ragged": True},
        {"name": "sensor", "size": 3},
    ]
    assert (default["buckets"], said["example"]["inputs"]) == ({"time": [8, 16]}, {"readings": [[1, 2, 3]]})


def test_steps_of_a_model_that_remembers_nothing_are_refused():
    with pytest.raises(
        ExportError, match="expected a layer that remembers from step to step, such as an LSTM, got none"
    ):
        planned(sequential(layers.Dense(2)), steps=True)


def test_a_stateful_model_that_cannot_be_stepped_is_refused():
    entry = keras.Input(batch_shape=(2, None, 3))
    model = keras.Model(entry, layers.Bidirectional(layers.GRU(2, stateful=True), name="both")(entry))
    with pytest.raises(ExportError, match=r"expected stateful=False .* layer 'both' \(Bidirectional\) cannot be run"):
        planned(model)


def test_a_machine_with_a_gpu_exports_what_one_without_can_run(tmp_path, serve, monkeypatch):
    """Keras takes operations of cuDNN where it finds a GPU, and these run nowhere else."""
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    layer = layers.LSTM(2, go_backwards=True)
    model = sequential(layer, layers.Dense(1))
    served = serve(export(model, tmp_path / "1"))
    [name] = served.contract["example"]["inputs"]
    assert served.call("sequences", {name: np.ones((2, 4, 3)), "lengths": [4, 2]})
    assert layer.use_cudnn == "auto"


def test_a_file_with_python_code_is_exported_if_it_is_trusted(tmp_path, serve):
    entry = keras.Input((None, 3), name="readings")
    model = keras.Model(entry, layers.LSTM(2, name="last")(layers.Lambda(lambda x: x * 2)(entry)))
    model.save(file := tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"model.keras: expected a file without Python code, .* --no-safe-mode"):
        export_file(file, tmp_path / "m" / "1")
    served = serve(export_file(file, tmp_path / "m" / "1", safe_mode=False))
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f4")
    answer = served.call("sequences", {"readings": x, "lengths": [4, 4]})["last"]
    np.testing.assert_allclose(answer, model.predict(x, verbose=0), atol=1e-6)
