"""`sluice export` of a classifier: recognition by the command line, and what is refused."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from sluice.cli.errors import CommandError
from sluice.cli.export import Recognition, run
from sluice.export.scores import METHODS

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A classifier that knows three clouds, and the rows that it was trained on."""
    keras.utils.set_random_seed(5)
    labels = np.arange(90) % 3
    x = (np.eye(4)[labels] * 4 + np.random.default_rng(0).normal(size=(90, 4))).astype(np.float32)
    model = keras.Sequential(
        [keras.Input((4,), name="reading"), layers.Dense(6, "tanh", name="hidden"), layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, labels, epochs=20, batch_size=8, verbose=0)
    folder = tmp_path_factory.mktemp("colours")
    model.save(folder / "colours.keras")
    np.savez(folder / "train.npz", x=x, label=np.array(NAMES)[labels])
    np.savez(folder / "places.npz", reading=x, label=labels)
    return folder


def exported(folder: Path, out: Path, features: str | None = None, train: str | None = None) -> Path:
    asked = Recognition(",".join(NAMES), features, None if train is None else folder / train)
    return run(folder / "colours.keras", out, (), asked)


def test_classes_alone_give_logits_that_are_recognized(folder, tmp_path, serve, quick_verification):
    served = serve(exported(folder, tmp_path / "1"))
    assert {*served.contract["signatures"]} == {"serving_default"}
    assert served.contract["recognition"] == {
        "signature": "serving_default",
        "logits": "logits",
        "classes": [*NAMES],
    }
    x = np.load(folder / "train.npz")["x"]
    logits = served.call("serving_default", {"reading": x})["logits"]
    model = keras.models.load_model(folder / "colours.keras")
    np.testing.assert_allclose(keras.ops.softmax(logits), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("train", ["train.npz", "places.npz"])
def test_a_features_layer_and_training_rows_give_every_score(train, folder, tmp_path, serve, quick_verification):
    served = serve(exported(folder, tmp_path / "1", "hidden", train))
    assert {*served.contract["recognition"]["scores"]} == {*METHODS}
    assert (tmp_path / "1" / "assets.extra" / "model.keras").read_bytes() == (folder / "colours.keras").read_bytes()


@pytest.mark.parametrize(
    ("asked", "code", "sentence"),
    [
        (Recognition(None, "hidden", Path("train.npz")), 2, "expected --classes beside --features and --train"),
        (Recognition("a,b,c", "hidden", None), 2, "expected --features and --train together"),
        (Recognition("a,,c", None, None), 2, "expected names, all different, with commas between; got a,,c"),
        (Recognition("a,b", None, None), 1, "expected 2 of them for the classes as stated, got 3"),
        (Recognition("a,b,c", "hidden", Path("train.npz")), 1, "expected labels of known classes, a, b, c"),
        (Recognition("red,green,blue", "hidden", Path("none.npz")), 1, "there is no such file"),
        (Recognition("red,green,blue", "head", Path("train.npz")), 1, "features layer 'head': expected a layer of"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(asked, code, sentence, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(CommandError, match=sentence) as refused:
        run(folder / "colours.keras", tmp_path / "colours" / "1", (), asked)
    assert refused.value.code == code
    assert not [*tmp_path.iterdir()]
