"""The folder an export leaves: its layout, its contract, and what goes along with it."""

import json
from pathlib import Path

import jsonschema
import keras
import numpy as np
from keras import layers

from models.export import Description, Meaning, export, export_file


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
    jsonschema.validate(served.contract, schema, cls=jsonschema.Draft202012Validator)
    assert {*served.contract["signatures"]} == {"serving_default"}
    axes = served.contract["signatures"]["serving_default"]["inputs"]["picture"]["axes"]
    assert [axis["name"] for axis in axes] == ["batch", "height", "width", "channel"]
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    answer = served.call("serving_default", {"picture": x})["classes"]
    np.testing.assert_allclose(answer, np.asarray(model(x)), atol=1e-6)


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


def test_states_are_named_after_the_call_of_the_layer(tmp_path, quick_verification):
    entry = keras.Input((None, 4))
    shared = layers.LSTM(4, return_sequences=True, name="shared")
    out = export(keras.Model(entry, layers.GRU(2, name="top")(shared(shared(entry)))), tmp_path / "1")
    document = json.loads((out / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
    states = document["signatures"]["step"]["states"]
    assert [state["name"] for state in states] == ["shared/h", "shared/c", "shared_1/h", "shared_1/c", "top/h"]
    assert states[-1] == {
        "name": "top/h",
        "input": "top/h",
        "output": "top/h",
        "dtype": "float32",
        "shape": [2],
        "initial": 0.0,
    }


def test_the_example_of_the_documentation_is_a_contract(schema):
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    jsonschema.validate(json.loads(example), schema, cls=jsonschema.Draft202012Validator)
