"""`sluice export` of classifiers: their classes, and scores by a layer and training data, without a line of Python."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from sluice.cli.model_folders import contract_file
from sluice.export import Classes, export_recognizer, exporter
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import BadRequest
from sluice.policy.plausibility import check_values
from tests.cli.conftest import Told, told
from tests.export.served import Served, opened, quick_verification, serve

__all__ = ["opened", "quick_verification", "serve"]

pytestmark = pytest.mark.usefixtures("quick_verification")

CLASSES = ["cat", "dog", "owl"]
CENTRES = np.array([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]], np.float32)


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures around the centre of their class, and its place."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(seed).normal(size=(count, 4))
    return (CENTRES[labels] + noise).astype(np.float32).reshape(-1, 2, 2), labels


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Probabilities by the products with the classes' centres."""
    dense = layers.Dense(3, "softmax", name="animal")
    made = keras.Sequential([keras.Input((2, 2), name="picture"), layers.Flatten(name="flat"), dense], name="animals")
    dense.set_weights([CENTRES.T, np.zeros(3, np.float32)])
    return made


@pytest.fixture(scope="module")
def folder(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cnn.keras`, and its training data with the names of classes and with their places."""
    found = tmp_path_factory.mktemp("classifier")
    model.save(found / "cnn.keras")
    pictures, labels = rows(60)
    np.savez(found / "named.npz", picture=pictures, label=np.array(CLASSES)[labels])
    cells = "\n".join(",".join(map(str, [*picture.ravel(), label])) for picture, label in zip(*rows(60), strict=True))
    (found / "places.csv").write_text(f"a,b,c,d,label\n{cells}\n")
    np.savez(found / "strange.npz", x=pictures, label=np.array([*CLASSES, "yak"])[labels + 1])
    np.savez(found / "bare.npz", x=pictures)
    np.savez(found / "wide.npz", x=np.zeros((3, 5)), label=np.arange(3))
    return found


def exported(*args: object) -> Path:
    done = told("export", *args)
    assert done.code == 0, done.error
    return Path(done.words)


def test_the_classes_alone_make_a_classifier_that_recognizes_by_its_logits(
    model: keras.Model, folder: Path, tmp_path: Path, serve: Callable[[Path], Served]
) -> None:
    out = exported(folder / "cnn.keras", "--out", tmp_path / "cnn" / "1", "--classes", "cat, dog,owl")
    served = serve(out)
    assert served.contract["recognition"] == {"signature": "serving_default", "logits": "logits", "classes": CLASSES}
    assert {*served.contract["signatures"]} == {"serving_default"}
    pictures = rows(9, seed=1)[0]
    logits = served.call("serving_default", {"picture": pictures})["logits"]
    np.testing.assert_allclose(logits, pictures.reshape(-1, 4) @ CENTRES.T, rtol=1e-5)
    same = keras.models.load_model(out / "assets.extra" / "model.keras")
    np.testing.assert_array_equal(same(pictures), model(pictures))


@pytest.mark.parametrize("train", ["named.npz", "places.csv"])
def test_a_layer_and_training_data_give_the_scores_that_python_gives(
    model: keras.Model, folder: Path, tmp_path: Path, serve: Callable[[Path], Served], train: str
) -> None:
    options = ["--features", "flat", "--train", folder / train]
    out = exported(folder / "cnn.keras", "--out", tmp_path / "cnn" / "1", "--classes", "cat,dog,owl", *options)
    by_python = serve(export_recognizer(model, "flat", rows(60), tmp_path / "py" / "1", classes=Classes(CLASSES)))
    by_command = serve(out)
    assert by_command.contract == by_python.contract
    strangers = {"picture": np.random.default_rng(2).normal(0, 4, (9, 2, 2)).astype(np.float32)}
    ours, theirs = (served.call("recognize", strangers) for served in (by_command, by_python))
    assert ours.keys() == theirs.keys() > {"scores/knn", "scores/vim", "scores/mahalanobis"}
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_methods_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    scores = ["--features", "flat", "--train", folder / "named.npz", "--method", "knn", "--method", "she"]
    out = exported(folder / "cnn.keras", "--out", tmp_path / "cnn" / "1", "--classes", "cat,dog,owl", *scores)
    contract = json.loads((out / "assets.extra" / "contract.json").read_text())
    assert contract["recognition"]["scores"] == {"knn": "scores/knn", "she": "scores/she"}


def test_pictures_of_another_scale_than_the_training_data_s_are_noticed(tmp_path: Path) -> None:
    stack = [keras.Input((2, 2), name="picture"), layers.Flatten(name="flat"), layers.Dense(2)]
    keras.Sequential(stack).save(tmp_path / "cnn.keras")
    pictures = np.random.default_rng(0).integers(0, 256, (20, 2, 2))
    pictures[0, 0] = 0, 255
    np.savez(tmp_path / "train.npz", picture=pictures / 255, label=np.arange(20) % 2)
    scores = ["--features", "flat", "--train", tmp_path / "train.npz", "--method", "knn"]
    out = exported(tmp_path / "cnn.keras", "--out", tmp_path / "cnn" / "1", "--classes", "a,b", *scores)
    usual = parse_contract(json.loads(contract_file(out).read_bytes())).recognition.range
    check_values("picture", pictures / 255, usual)
    with pytest.raises(BadRequest, match=r"made for values from 0 to 1\. .* dividing them by 255"):
        check_values("picture", pictures, usual)


def several() -> keras.Model:
    """It takes a word, the place of a word, and a picture of any size."""
    word, place = keras.Input((), dtype="string", name="word"), keras.Input((2,), dtype="int32", name="place")
    picture = keras.Input((None, None, 1), name="picture")
    table = layers.StringLookup(vocabulary=["cat", "dog"], name="look_up")
    joined = layers.Concatenate()(
        [
            layers.Embedding(3, 2, name="of_word")(table(word)),
            layers.Flatten()(layers.Embedding(2, 2, name="of_place")(place)),
            layers.GlobalAveragePooling2D()(layers.Conv2D(2, 5)(picture)),
        ]
    )
    return keras.Model([word, place, picture], layers.Dense(2, name="logits")(joined))


def test_inputs_of_any_kind_need_no_training_data(tmp_path: Path, serve: Callable[[Path], Served]) -> None:
    model = several()
    model.save(tmp_path / "several.keras")
    served = serve(exported(tmp_path / "several.keras", "--out", tmp_path / "m" / "1", "--classes", "yes,no"))
    given: dict[str, Any] = {
        "word": np.array([b"dog", b"yak"], object), "place": np.array([[0, 1], [1, 1]], np.int32),
        "picture": np.ones((2, 7, 6, 1), np.float32),
    }  # fmt: skip
    expected = model([keras.ops.convert_to_tensor(each) for each in given.values()])
    np.testing.assert_allclose(served.call("serving_default", given)["logits"], expected, atol=1e-5)


def test_rows_that_the_model_cannot_be_called_with_are_told_with_their_file(tmp_path: Path) -> None:
    stack = [keras.Input((2,), dtype="int32", name="place"), layers.Embedding(3, 2), layers.Flatten(name="flat")]
    keras.Sequential([*stack, layers.Dense(2)]).save(tmp_path / "words.keras")
    np.savez(tmp_path / "train.npz", x=np.array([[0, 1], [2, 9]], np.int32), label=np.arange(2))
    scores = ["--features", "flat", "--train", tmp_path / "train.npz"]
    done = told("export", tmp_path / "words.keras", "--out", tmp_path / "w" / "1", "--classes", "a,b", *scores)
    assert done.code == 1
    assert done.reason.endswith("train.npz: expected rows that the model takes; indices[1,1] = 9 is not in [0, 3)")


SCORES = ["--features", "flat", "--train", "named.npz"]
REFUSED: dict[str, tuple[list[str], int, str]] = {
    "a class twice": (["--classes", "cat,cat,owl"], 2, "--classes: expected the classes' names"),
    "a class without a name": (["--classes", "cat,,owl"], 2, "all different, as in cat,dog; got 'cat,,owl'"),
    "too few classes": (["--classes", "cat,dog"], 1, "logits: expected 2 of them"),
    "a layer alone": (["--classes", "cat,dog,owl", "--features", "flat"], 2, "or neither; got --features"),
    "data alone": (["--classes", "cat,dog,owl", "--train", "named.npz"], 2, "or neither; got --train"),
    "scores without classes": (SCORES, 2, "--features: expected --classes A,B,…, too"),
    "a method without scores": (["--classes", "cat,dog,owl", "--method", "knn"], 2, "--method: expected --features"),
    "no such method": (["--classes", "cat,dog,owl", *SCORES, "--method", "no"], 1, "method 'no': expected one of"),
    "steps of rows": (["--classes", "cat,dog,owl", "--steps"], 2, "expected --steps or --classes A,B,…, got both"),
    "steps of no memory": (["--steps"], 1, "expected a layer that remembers from step to step"),
    "no such layer": (
        ["--classes", "cat,dog,owl", *SCORES, "--features", "no"],
        1,
        "features layer 'no': expected a layer of",
    ),
    "no such file": (["--classes", "cat,dog,owl", *SCORES, "--train", "no.npz"], 1, "there is no such file"),
    "a strange label": (["--classes", "cat,dog,owl", *SCORES, "--train", "strange.npz"], 1, "got 'yak'. Leave rows of"),
    "no labels": (["--classes", "cat,dog,owl", *SCORES, "--train", "bare.npz"], 1, "expected a label for each row"),
    "other rows": (
        ["--classes", "cat,dog,owl", *SCORES, "--train", "wide.npz"],
        1,
        "takes float32 [batch, axis 1=2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_told_and_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options, code, sentence = REFUSED[name]
    monkeypatch.chdir(folder)
    done: Told = told("export", "cnn.keras", "--out", tmp_path / "cnn" / "1", *options)
    assert (done.code, sentence in done.reason) == (code, True), done.error
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_told_to_stop_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(exporter, "verify", lambda *_: os.kill(os.getpid(), number))
    handlers = [(signal.SIGTERM, signal.SIG_IGN), (signal.SIGINT, signal.default_int_handler)]
    before = [(each, signal.signal(each, handler)) for each, handler in handlers]
    try:
        done = told("export", folder / "cnn.keras", "--out", tmp_path / "cnn" / "1")
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert done.code == 128 + number
    assert not [*tmp_path.iterdir()]
