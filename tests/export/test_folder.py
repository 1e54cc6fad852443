"""The folder an export leaves: its layout, its contract, what goes along with it, and where it may be."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from sluice.export import Description, ExportError, Meaning, export, export_file
from sluice.export.contract import UNDESCRIBED, contract
from sluice.export.plan import plan_for
from tests.export.examples import (
    causal_convolutions,
    of_precision,
    sequential,
    stacked_cells,
    static_input,
    static_picture,
)


def pictures_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="picture"),
            layers.Conv2D(2, 3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


def test_a_model_without_recurrent_layers_is_served_as_rows(tmp_path, serve, schema, quick_verification):
    model = pictures_model()
    served = serve(export(model, tmp_path / "pictures" / "1"))
    schema.validate(served.contract)
    assert {*served.contract["signatures"]} == {"serving_default"}
    axes = served.contract["signatures"]["serving_default"]["inputs"]["picture"]["axes"]
    assert [axis["name"] for axis in axes] == ["batch", "height", "width", "channel"]
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    answer = served.call("serving_default", {"picture": x})["classes"]
    np.testing.assert_allclose(answer, np.asarray(model(x)), atol=1e-6)


class Codes(layers.Layer):
    """Adds up what stands for a number in its tables, wherever it keeps them."""

    def __init__(self, keep):
        super().__init__()
        self.kept, self._tables = keep([_table(5), _table(70)])

    def call(self, numbers):
        return sum(table.lookup(numbers) for table in self._tables())


def _table(code):
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1], [code, code + 1]), -1)


def contract_of(model: keras.Model, description: Description = UNDESCRIBED) -> dict:
    """The document that `export` writes."""
    return json.loads(json.dumps(contract(plan_for(model), description)))


@pytest.mark.parametrize(
    "keep",
    [
        lambda tables: (tables, lambda: tables),
        lambda tables: (tuple(tables), lambda: tables),
        lambda tables: ({"a": tables[0], "b": {"c": [tables[1]]}}, lambda: tables),
    ],
    ids=["list", "tuple", "dict"],
)
def test_tables_go_along_wherever_a_layer_keeps_them(tmp_path, serve, quick_verification, keep):
    numbers = keras.Input((3,), dtype="int32", name="numbers")
    inner = keras.Model(numbers, Codes(keep)(numbers))
    served = serve(export(keras.Model(numbers, inner(numbers)), tmp_path / "codes" / "1"))
    [answer] = served.call("serving_default", {"numbers": [[0, 1, 2]]}).values()
    assert answer.tolist() == [[75, 77, -2]]


def test_a_keras_file_is_exported_in_a_fresh_process_and_goes_along(tmp_path, serve):
    file = tmp_path / "counter.keras"
    keras.Sequential([keras.Input((4, 2), name="events"), layers.GRU(3, name="count")]).save(file)
    out = export_file(file, tmp_path / "models" / "counter" / "12", Description("Counts events."))
    assert out == tmp_path / "models" / "counter" / "12"
    assert [path.name for path in out.parent.iterdir()] == ["12"]
    assert (out / "assets.extra" / "model.keras").read_bytes() == file.read_bytes()
    assert serve(out).contract["summary"] == "Counts events."


def test_an_empty_version_folder_is_filled(tmp_path, quick_verification):
    (tmp_path / "1").mkdir()
    assert (export(pictures_model(), tmp_path / "1") / "saved_model.pb").exists()


def test_descriptions_reach_the_contract(tmp_path, quick_verification):
    model = keras.Sequential(
        [keras.Input((None,), dtype="int64", name="words"), layers.Embedding(9, 2), layers.LSTM(3, name="mood")]
    )
    description = Description(
        summary="Mood of a text.",
        time="one word",
        tensors={
            "words": Meaning("the word's number", typical=(1, 8)),
            "mood": Meaning("mood", "points", {"mood": "joy, fear, anger"}),
        },
        example=3,
    )
    out = export(model, tmp_path / "1", description)
    document = json.loads((out / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
    scan = document["signatures"]["scan"]
    assert scan["inputs"]["words"] == {
        "dtype": "int64",
        "axes": [{"name": "batch"}, {"name": "time", "meaning": "one word"}],
        "meaning": "the word's number",
    }
    assert scan["outputs"]["mood"] == {
        "dtype": "float32",
        "axes": [{"name": "batch"}, {"name": "mood", "size": 3, "meaning": "joy, fear, anger"}],
        "meaning": "mood",
        "unit": "points",
    }
    assert document["example"] == {"signature": "step", "inputs": {"words": 3}}


def test_states_are_named_after_the_call_of_the_layer():
    entry = keras.Input((None, 4))
    shared = layers.LSTM(4, return_sequences=True, name="shared")
    model = keras.Model(entry, layers.GRU(2, name="top")(shared(shared(entry))))
    states = contract_of(model)["signatures"]["step"]["states"]
    assert [state["name"] for state in states] == ["shared/h", "shared/c", "shared_1/h", "shared_1/c", "top/h"]
    assert states[-1] == {
        "name": "top/h",
        "input": "top/h",
        "output": "top/h",
        "dtype": "float32",
        "shape": [2],
        "initial": 0.0,
    }


def test_states_of_stacked_and_custom_cells_are_numbered_and_start_where_the_cell_says():
    document = contract_of(stacked_cells())
    states = {state["name"].split("/", 1)[1]: state for state in document["signatures"]["step"]["states"]}
    assert [*states] == ["cell_0/h", "cell_0/c", "cell_1/state_0", "cell_1/state_1", "cell_2/h", "state_0"]
    assert (states["cell_1/state_0"]["shape"], states["cell_1/state_0"]["initial"]) == ([3], 0.5)
    assert (states["cell_1/state_1"]["shape"], states["cell_1/state_1"]["initial"]) == ([3, 3], 0.0)
    assert (states["state_0"]["shape"], states["state_0"]["initial"]) == ([2], [0.0, 1.0])


def test_a_mask_adds_the_previous_output_to_the_state():
    masked = sequential(layers.Masking(), layers.LSTM(4, name="lstm"))
    states = contract_of(masked)["signatures"]["step"]["states"]
    assert [state["name"] for state in states] == ["lstm/h", "lstm/c", "lstm/output"]


def test_zeros_for_masked_steps_need_no_previous_output():
    masked = sequential(layers.Masking(), layers.LSTM(4, name="lstm", zero_output_for_mask=True))
    states = contract_of(masked)["signatures"]["step"]["states"]
    assert [state["name"] for state in states] == ["lstm/h", "lstm/c"]


def test_the_state_of_a_causal_convolution_is_its_window_of_past_inputs():
    convolution = layers.Conv1D(2, 3, padding="causal", dilation_rate=4, name="conv")
    states = contract_of(sequential(convolution, layers.GRU(2)))["signatures"]["step"]["states"]
    assert (states[0]["name"], states[0]["shape"]) == ("conv/window", [8, 3])


def test_an_input_without_time_steps_is_given_at_each_step_of_a_scan():
    signatures = contract_of(static_input())["signatures"]
    axes = {
        name: [axis["name"] for axis in signature["inputs"]["person"]["axes"]] for name, signature in signatures.items()
    }
    assert axes == {
        "step": ["batch", "feature"],
        "scan": ["batch", "time", "feature"],
        "serving_default": ["batch", "feature"],
    }


def test_the_default_of_a_recurrent_model_takes_sequences_of_uneven_lengths():
    description = Description(time="one reading", buckets={"time": [4, 8]})
    document = contract_of(static_input(), description)
    said = document["signatures"]["serving_default"]
    assert {key: said[key] for key in ("kind", "calls", "lengths", "buckets")} == {
        "kind": "sequences",
        "calls": "sequences",
        "lengths": {"time": "lengths"},
        "buckets": {"time": [4, 8]},
    }
    assert said["inputs"]["readings"] == {
        "dtype": "float32",
        "axes": [
            {"name": "batch"},
            {"name": "time", "meaning": "one reading", "ragged": True},
            {"name": "feature", "size": 3},
        ],
        "pad": 0.0,
    }
    assert said["inputs"]["person"] == {
        "dtype": "float32",
        "axes": [{"name": "batch"}, {"name": "feature", "size": 4}],
    }
    axes = {name: [axis["name"] for axis in tensor["axes"]] for name, tensor in said["outputs"].items()}
    assert axes == {"each": ["batch", "time", "feature"], "end": ["batch", "feature"], "prior": ["batch", "feature"]}


def test_sequences_with_another_axis_of_free_size_are_served_as_rows(tmp_path, serve, quick_verification):
    frame = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])
    served = serve(
        export(sequential(layers.TimeDistributed(frame), layers.GRU(2), shape=(None,) * 3 + (1,)), tmp_path / "1")
    )
    assert served.contract["signatures"]["serving_default"]["kind"] == "rows"
    assert {"step", "scan"} <= {*served.contract["signatures"]}
    assert "sequences" not in served.signatures


@pytest.mark.parametrize(("dtype", "pad"), [("int32", 0), ("float16", 0.0), ("bool", False)])
def test_padding_is_a_value_of_the_input_s_dtype(dtype, pad):
    entry = keras.Input((None, 2), dtype=dtype, name="events")
    model = keras.Model(entry, layers.GRU(2)(keras.ops.cast(entry, "float32")))
    said = contract_of(model)["signatures"]["serving_default"]["inputs"]["events"]["pad"]
    assert (said, type(said)) == (pad, type(pad))


def test_an_input_named_lengths_keeps_its_name():
    scan = contract_of(static_picture())["signatures"]["scan"]
    assert [*scan["inputs"]] == ["readings", "lengths"]
    assert scan["lengths"] == "lengths_1"


@pytest.mark.filterwarnings("ignore:Layer 'conv1d:UserWarning")  # Keras says that it drops the mask
def test_half_precision_is_stated():
    step = contract_of(of_precision("mixed_bfloat16"))["signatures"]["step"]
    assert {state["dtype"] for state in step["states"]} == {"bfloat16"}
    assert [tensor["dtype"] for tensor in (*step["inputs"].values(), *step["outputs"].values())] == ["float32"] * 2


def test_an_export_leaves_the_model_as_it_was(tmp_path, quick_verification):
    model = causal_convolutions()
    before = model.to_json()
    export(model, tmp_path / "1")
    assert model.to_json() == before


def test_the_example_of_the_documentation_is_a_contract(schema):
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    schema.validate(json.loads(example))


@pytest.mark.parametrize(
    ("version", "better"),
    [("0", "1"), ("v1", "1"), ("-1", "-1/1"), ("one", "one/1"), ("1.5", "1.5/1"), ("²", "²/1"), ("١", "١/1")],
)
def test_a_version_is_a_positive_whole_number(version, better, tmp_path):
    with pytest.raises(ExportError, match=f"positive whole number as VERSION, .*; try {tmp_path}/model/{better}$"):
        export(pictures_model(), tmp_path / "model" / version)


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(ExportError, match=r"model: expected a folder that can be written to; File exists"):
        export(pictures_model(), tmp_path / "model" / "1")


def test_a_version_that_exists_is_not_overwritten(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("mine")
    with pytest.raises(ExportError, match="does not exist yet"):
        export(pictures_model(), tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "mine"


def test_two_exports_of_one_version_do_not_meet(tmp_path):
    (tmp_path / "exporting-1").mkdir()
    with pytest.raises(ExportError, match="another export"):
        export(pictures_model(), tmp_path / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["exporting-1"]
