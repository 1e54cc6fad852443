"""What is served equals Keras: models of somebody else's, exported by the command line, stepped in any mixture.

A classifier of theirs recognizes, by commands alone.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from sluice.client import Client
from sluice.export import export
from tests.cli.conftest import told
from tests.end_to_end.serving import Gateway, serving
from tests.export.served import opened, quick_verification

__all__ = ["opened", "quick_verification"]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-5
STEPS, CLIENTS = 30, 12


def last_value() -> keras.Model:
    return keras.Sequential([keras.Input((20, 3)), keras.layers.LSTM(16), keras.layers.Dense(2)], name="last_value")


def stacked() -> keras.Model:
    """With slices, which a file holds as lists, and a layer that is called as if in training."""
    signal = keras.Input(batch_shape=(10, None, 4), name="signal")
    hidden = keras.layers.LayerNormalization()(keras.layers.Concatenate()([signal[..., ::-1], signal[..., 1:]]))
    hidden = keras.layers.GRU(12, return_sequences=True, stateful=True)(hidden)
    hidden = keras.layers.GRU(6, return_sequences=True, stateful=True)(keras.layers.Dropout(0.5)(hidden, training=True))
    return keras.Model(signal, keras.layers.Dense(3, name="answer")(hidden), name="stacked")


def simple() -> keras.Model:
    """With names as people write them."""
    return keras.Sequential(
        [
            keras.Input((None, 2), name="sea temp"),
            keras.layers.SimpleRNN(8, return_sequences=True, name="x:0"),
            keras.layers.Dense(1, name="Größe_°C"),
        ],
        name="simple",
    )


def cells() -> keras.Model:
    cell = keras.layers.StackedRNNCells([keras.layers.LSTMCell(6), keras.layers.GRUCell(5)])
    return keras.Sequential([keras.Input((None, 2)), keras.layers.RNN(cell, return_sequences=True)], name="cells")


def windowed() -> keras.Model:
    """A causal convolution, and a way round the recurrent layer."""
    signal = keras.Input((None, 3), name="signal")
    window = keras.layers.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="tanh")(signal)
    hidden = keras.layers.GRU(5, return_sequences=True)(window)
    return keras.Model(signal, keras.layers.Dense(2)(keras.layers.Concatenate()([window, hidden])), name="windowed")


MODELS = {each.__name__: each for each in (last_value, stacked, simple, cells, windowed)}
DOORS = ("HTTP", "WebSocket", "columns", "gRPC", "gRPC stream", "gRPC columns")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, keras.Model]:
    """Models as if trained."""
    keras.utils.set_random_seed(3)
    models = {name: build() for name, build in MODELS.items()}
    for model in models.values():
        for variable in model.trainable_variables:
            variable.assign(np.random.default_rng(len(variable.shape)).normal(0, 0.4, variable.shape))
    return models


@pytest.fixture(scope="module")
def gateway(
    strangers: dict[str, keras.Model], quick_verification: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """In front of the models; one is exported by the command line, from a file as strangers save it."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "calibrations").mkdir()
    export_clouds(folder)
    for name, (model, _) in OTHERS.items():
        export_file(folder, name, model())
    for name, model in strangers.items():
        version = folder / "models" / name / "1"
        if name == "stacked":
            export_file(folder, name, model)
        else:
            export(model, version)
    with serving(folder / "models", folder, "--calibrations", str(folder / "calibrations")) as running:
        yield running


@pytest.mark.parametrize("name", MODELS)
def test_every_client_gets_what_keras_gives_it_alone_through_whichever_door_it_comes(
    name: str, gateway: Gateway, strangers: dict[str, keras.Model]
) -> None:
    dice = random.Random(name)
    series = np.random.default_rng(5).normal(0, 1, (CLIENTS, STEPS, features(strangers[name]))).astype(np.float32)
    answers = interleaved(gateway, name, series, dice)
    expected = after_each_step(strangers[name], series)
    for client, answered in enumerate(answers):
        for end, output in answered:
            # A scan of a model that gives sequences answers for each of its own steps.
            steps = slice(end - len(output), end) if np.ndim(output) == 2 else end - 1
            wanted = expected[client, steps]
            assert np.all(np.abs(output - wanted) <= TOLERANCE * np.maximum(1, np.abs(wanted))), (client, end)


def test_the_stateless_signature_takes_any_batch(gateway: Gateway, strangers: dict[str, keras.Model]) -> None:
    rows = np.random.default_rng(6).normal(0, 1, (7, 9, 4)).astype(np.float32)
    reply = gateway.call("POST", "/v1/models/stacked:predict", {"instances": rows.tolist()})
    expected = np.stack([alone(strangers["stacked"], row) for row in rows])
    np.testing.assert_allclose(reply.body["predictions"], expected, rtol=TOLERANCE, atol=TOLERANCE)


def with_a_mask() -> keras.Model:
    """A mask that comes as an input, by keyword."""
    x, mask = keras.Input((6, 2), name="x"), keras.Input((6, 1), dtype="bool", name="mask")
    return keras.Model([x, mask], keras.layers.LSTM(3)(x, mask=mask))


def of_an_older_file() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def of_words() -> keras.Model:
    words = keras.layers.StringLookup(vocabulary=["north", "south"])
    return keras.Sequential([keras.Input((), dtype="string", name="word"), words])


OTHERS = {
    "with_a_mask": (with_a_mask, {"x": np.ones((2, 6, 2), np.float32), "mask": np.tri(2, 6, 3, bool)[..., np.newaxis]}),
    "of_an_older_file": (of_an_older_file, np.eye(3, dtype=np.float32)),
    "of_words": (of_words, np.array(["south", "west"])),
}


def export_file(folder: Path, name: str, model: keras.Model) -> None:
    """By the command line, from a file as strangers save it."""
    file = folder / f"{name}{'.h5' if 'older' in name else '.keras'}"
    model.save(file)
    done = told("export", file, "--out", folder / "models" / name / "1")
    assert done.code == 0, done.error


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_are_served_from_their_files_as_keras_runs_them(name: str, gateway: Gateway) -> None:
    beside = gateway.log.parent / "models" / name / "1" / "assets.extra" / "model.keras"
    _, inputs = OTHERS[name]
    with Client(gateway.url) as client:
        (answer,) = client.predict(name, inputs).values()
    given = (
        {key: keras.ops.convert_to_tensor(each) for key, each in inputs.items()}
        if isinstance(inputs, dict)
        else (keras.ops.convert_to_tensor(inputs))
    )
    expected = keras.ops.convert_to_numpy(keras.models.load_model(beside)(given))
    np.testing.assert_allclose(answer, expected, rtol=TOLERANCE, atol=TOLERANCE)


CENTRES = np.array([[6.0, 0, 0, 0], [0, 6, 0, 0], [0, 0, 6, 0]], np.float32)


def clouds(rows: int, seed: int) -> dict[str, Any]:
    """Points around the centre of their class."""
    labels = np.arange(rows) % 3
    noise = np.random.default_rng(seed).normal(0, 1, (rows, 4))
    return {"x": (CENTRES[labels] + noise).astype(np.float32), "label": np.array(["red", "green", "blue"])[labels]}


def export_clouds(folder: Path) -> None:
    """A classifier of points, with scores by the layer `same`."""
    keras.utils.set_random_seed(4)
    logits = keras.layers.Dense(3, "softmax")
    model = keras.Sequential([keras.Input((4,), name="point"), keras.layers.Identity(name="same"), logits])
    logits.set_weights([CENTRES.T, np.zeros(3, np.float32)])
    model.save(folder / "clouds.keras")
    np.savez(folder / "train.npz", **clouds(120, 1))
    scores = ["--features", "same", "--train", folder / "train.npz"]
    out = ["--out", folder / "models" / "clouds" / "1"]
    done = told("export", folder / "clouds.keras", *out, "--classes", "red,green,blue", *scores)
    assert done.code == 0, done.error


def test_a_classifier_from_a_file_recognizes_when_it_is_calibrated(gateway: Gateway, tmp_path: Path) -> None:
    np.savez(tmp_path / "held_out.npz", **clouds(300, 2))
    given = ["--known", tmp_path / "held_out.npz", "--calibrations", gateway.log.parent / "calibrations"]
    done = told("calibrate", "clouds", *given, "--url", gateway.url)
    assert done.code == 0, done.error
    assert gateway.call("POST", "/v1/calibrations:reload").status == 200
    rows = [[6, 0, 0, 0], [0, 0, 6, 0], [0, 0, 0, 9]]
    reply = gateway.call("POST", "/v1/models/clouds:recognize", {"instances": rows, "method": "knn"})
    assert [each["label"] for each in reply.body["results"]] == ["red", "blue", None]


def test_a_model_s_names_are_those_that_clients_write(gateway: Gateway, strangers: dict[str, keras.Model]) -> None:
    rows = np.random.default_rng(7).normal(0, 1, (2, 5, 2)).astype(np.float32)
    reply = gateway.call(
        "POST", "/v1/models/simple:predict", {"instances": [{"sea temp": row} for row in rows.tolist()]}
    )
    expected = np.stack([alone(strangers["simple"], row) for row in rows])
    np.testing.assert_allclose(reply.body["predictions"], expected, rtol=TOLERANCE, atol=TOLERANCE)
    with Client(gateway.url) as client:
        session = client.open("simple", "named")
        assert {*session.step({"sea temp": rows[0, 0]})} == {"Größe_°C"}


def test_what_cannot_be_stepped_is_refused_by_name(tmp_path: Path) -> None:
    layers = keras.layers
    both_ways = layers.Bidirectional(layers.LSTM(4), name="both_ways")
    model = keras.Sequential([keras.Input((None, 2)), both_ways])
    model.save(tmp_path / "model.keras")
    done = told("export", tmp_path / "model.keras", "--out", tmp_path / "models" / "m" / "1", "--steps")
    assert done.code == 1
    assert "both_ways" in done.error
    assert not (tmp_path / "models").exists()


def features(model: keras.Model) -> int:
    size: int = model.input_shape[-1]
    return size


def interleaved(gateway: Gateway, name: str, series: Any, dice: random.Random) -> list[list[tuple[int, Any]]]:
    """Feed all clients in random order, by steps and scans of random length, each call through a door by chance.

    Returns:
        (steps done, answer) by client.
    """
    done = [0] * CLIENTS
    answers: list[list[tuple[int, Any]]] = [[] for _ in done]
    with Client(gateway.url) as http, Client(gateway.grpc_url) as grpc, http.stream(name) as sockets:
        with grpc.stream(name) as stream:
            for client in range(CLIENTS):
                http.open(name, f"{name}-{client}")
            while waiting := [client for client, steps in enumerate(done) if steps < STEPS]:
                client, door = dice.choice(waiting), dice.choice(DOORS)
                chunk = series[client, done[client] : done[client] + dice.choice([1, 1, 1, 2, 5])]
                opener = grpc if "gRPC" in door else http
                session = opener.session(f"{name}-{client}")
                assert session.steps_done == done[client]
                if len(chunk) > 1:
                    output = only(session.scan(chunk))
                elif door in ("WebSocket", "gRPC stream"):
                    output = only((sockets if opener is http else stream).step(session, chunk[0]))
                elif "columns" in door:
                    output = only(opener.step_many(name, [session], chunk).outputs)[0]
                else:
                    output = only(session.step(chunk[0]))
                done[client] += len(chunk)
                answers[client].append((done[client], output))
    return answers


def only(outputs: Any) -> Any:
    (output,) = outputs.values()
    return output


def after_each_step(model: keras.Model, every: Any) -> Any:
    """Keras alone after every step of each sequence, side by side where its batch is free; or on all beginnings."""
    if model.input_shape[0]:
        return np.stack([alone(model, sequence) for sequence in every])
    if model.name != "last_value":
        return whole(model, every)
    return np.stack([whole(model, every[:, :end]) for end in range(1, STEPS + 1)], axis=1)


def alone(model: keras.Model, sequence: Any) -> Any:
    """Keras itself on one client's whole sequence; where the batch is fixed, alike in every row."""
    batch = model.input_shape[0] or 1
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    return whole(model, np.repeat(sequence[np.newaxis], batch, axis=0))[0]


def whole(model: keras.Model, sequences: Any) -> Any:
    return keras.ops.convert_to_numpy(model(sequences, training=False))
