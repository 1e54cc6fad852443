"""Scores of an exported classifier against independent implementations, its contract, and what is refused."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance, shrunk_covariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from sluice.export import Classes, Description, Detector, ExportError, Meaning, ScoreOptions, export_recognizer
from sluice.export.bank import bank, normalised
from sluice.export.scores import METHODS

CLASSES = Classes(("red", "green", "blue"))
OPTIONS = ScoreOptions(shrinkage=0.05, neighbours=3, rows_per_class=1000, principal=5, percentile=80)
UNITS = 12
WIDE = "hidden"
# Loose enough for float32 in the graph, tight enough for any other formula.
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


def data(rows: int = 240, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds in seven dimensions."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = np.random.default_rng(0).normal(0, 2, (3, 7))
    return (centres[labels] + random.normal(size=(rows, 7))).astype(np.float32), labels


def network(*head: keras.Layer) -> keras.Model:
    """Features of `UNITS`, then the head; trained enough that each class is mostly right."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((7,), name="reading"), layers.Dense(UNITS, "tanh", name=WIDE), *(head or [layers.Dense(3)])]
    )
    from_logits = "softmax" not in str(model.layers[-1].get_config().get("activation", ""))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits))
    model.fit(*data(), epochs=15, batch_size=16, verbose=0)
    return model


def features_of(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(model.inputs[0], model.get_layer(WIDE).output)(x), np.float64)


def strange(rows: int = 40) -> np.ndarray:
    return np.random.default_rng(9).normal(0, 4, (rows, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory, quick_verification) -> Path:
    folder = tmp_path_factory.mktemp("colours") / "1"
    return export_recognizer(trained, WIDE, data(), folder, classes=CLASSES, options=OPTIONS)


class Seen:
    """What an exported classifier answers to known and strange rows, and what its training data look like to it."""

    def __init__(self, model: keras.Model, served) -> None:
        self.x = np.concatenate([data(30, seed=2)[0], strange()])
        self.answer = served.call("recognize", {"reading": self.x})
        self.features = features_of(model, self.x)
        self.training = features_of(model, data()[0])
        self.labels = data()[1]
        self.means = np.stack([self.training[self.labels == each].mean(axis=0) for each in range(3)])
        self.centred = self.training - self.means[self.labels]
        kernel, bias = (np.asarray(each, np.float64) for each in model.layers[-1].get_weights())
        self.kernel, self.bias = kernel, bias

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.kernel + self.bias

    def score(self, method: str) -> np.ndarray:
        found = self.answer[f"scores/{method}"]
        assert found.shape == (len(self.x),)
        assert found.dtype == np.float32
        return found


@pytest.fixture(scope="module")
def seen(trained, exported, serve) -> Seen:
    return Seen(trained, serve(exported))


def test_logits_and_features_are_keras_s(trained, seen):
    np.testing.assert_allclose(seen.answer["features"], seen.features, atol=1e-5)
    np.testing.assert_allclose(seen.answer["logits"], np.asarray(trained(seen.x)), atol=1e-5)


def covariance_of(centred: np.ndarray) -> EmpiricalCovariance:
    """scikit-learn's covariance, shrunk, as an estimator that knows distances."""
    found = EmpiricalCovariance(assume_centered=True).fit(centred)
    found.precision_ = np.linalg.inv(shrunk_covariance(found.covariance_, OPTIONS.shrinkage))
    return found


def nearest_mean(seen: Seen) -> np.ndarray:
    covariance = covariance_of(seen.centred)
    return np.min([covariance.mahalanobis(seen.features - mean) for mean in seen.means], axis=0)


def test_mahalanobis_is_scikit_learn_s_with_one_covariance(seen):
    np.testing.assert_allclose(seen.score("mahalanobis"), nearest_mean(seen), **CLOSE)


def test_relative_mahalanobis_takes_off_the_distance_to_all_rows(seen):
    centre = seen.training.mean(axis=0)
    background = covariance_of(seen.training - centre).mahalanobis(seen.features - centre)
    np.testing.assert_allclose(seen.score("relative_mahalanobis"), nearest_mean(seen) - background, **CLOSE)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.stack([row / np.sqrt(sum(each * each for each in row)) for row in rows])


def test_knn_is_scikit_learn_s_distance_to_the_kth_neighbour(seen):
    neighbours = NearestNeighbors(n_neighbors=OPTIONS.neighbours).fit(unit(seen.training))
    distances, _ = neighbours.kneighbors(unit(seen.features))
    np.testing.assert_allclose(seen.score("knn"), distances[:, -1], **CLOSE)


def test_vim_is_what_principal_components_leave_over_less_the_evidence_of_the_logits(seen):
    """As the paper's code: PCA about the point without logits, residual scaled by alpha, log-sum-exp taken off."""
    origin = -np.linalg.pinv(seen.kernel.T) @ seen.bias
    centred = seen.training - origin
    components = PCA(UNITS).fit(np.concatenate([centred, -centred])).components_[: OPTIONS.principal]

    def residual(features: np.ndarray) -> np.ndarray:
        moved = features - origin
        return np.linalg.norm(moved - moved @ components.T @ components, axis=1)

    alpha = seen.logits(seen.training).max(axis=1).mean() / residual(seen.training).mean()
    virtual = alpha * residual(seen.features)
    expected = virtual - logsumexp(seen.logits(seen.features), axis=1)
    np.testing.assert_allclose(seen.score("vim"), expected, **CLOSE)
    probability = softmax(np.column_stack([seen.logits(seen.features), virtual]), axis=1)[:, -1]
    assert (np.argsort(probability[:20]) == np.argsort(seen.score("vim")[:20])).all()


def test_she_is_the_product_with_the_mean_of_the_rows_classified_rightly(seen):
    right = seen.logits(seen.training).argmax(axis=1) == seen.labels
    assert not right.all()
    for row, score in zip(seen.features, seen.score("she"), strict=True):
        predicted = int(seen.logits(row[None])[0].argmax())
        rows = [
            each
            for each, label, good in zip(seen.training, seen.labels, right, strict=True)
            if good and label == predicted
        ]
        assert score == pytest.approx(-sum(row * sum(rows) / len(rows)), rel=1e-4, abs=1e-4)


def test_react_is_the_energy_of_clipped_features(seen):
    bound = np.percentile(seen.training, OPTIONS.percentile)
    assert (seen.features > bound).any()
    for row, score in zip(seen.features, seen.score("react"), strict=True):
        logits = [
            sum(min(f, bound) * w for f, w in zip(row, seen.kernel[:, c], strict=True)) + seen.bias[c] for c in range(3)
        ]
        assert score == pytest.approx(-logsumexp(logits), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_strange_rows_score_higher(seen, method):
    known, unknown = np.split(seen.score(method), [30])
    assert np.median(unknown) > np.median(known) or method in ("she", "react", "relative_mahalanobis")


def test_the_contract_says_what_the_signatures_give(exported, serve, schema):
    served = serve(exported)
    signatures = served.contract["signatures"]
    assert {*signatures} == {"serving_default", "recognize"}
    assert {*served.signatures["serving_default"].outputs} == {"logits"}
    for name, stated in signatures.items():
        assert {*served.signatures[name].outputs} == {*stated["outputs"]}
        for output, about in stated["outputs"].items():
            assert about["dtype"] == served.dtype(name, output) == np.float32
    assert signatures["recognize"]["outputs"]["scores/knn"]["axes"] == [{"name": "batch"}]
    logits = signatures["serving_default"]["outputs"]["logits"]["axes"][1]
    assert logits == {"name": "class", "size": 3, "meaning": "red, green, blue"}
    assert served.contract["recognition"] == {
        "signature": "serving_default",
        "logits": "logits",
        "classes": ["red", "green", "blue"],
        "scores_signature": "recognize",
        "scores": {method: f"scores/{method}" for method in METHODS},
        "range": [float(data()[0].min()), float(data()[0].max())],
    }
    schema.validate(served.contract)


def test_the_rest_of_the_contract_comes_from_what_is_said(trained, tmp_path, serve, quick_verification):
    described = Description("Colours.", tensors={"reading": Meaning("light", typical=(-4, 4))}, example=[0.0] * 7)
    classes = Classes(CLASSES.names, detector=Detector("colours_detector", known=1))
    out = export_recognizer(
        trained, WIDE, data(), tmp_path / "1", classes=classes, description=described, methods=["knn"],
        assets={"note.txt": lambda file: file.write_text("hello")},
    )  # fmt: skip
    served = serve(out)
    recognition = served.contract["recognition"]
    assert recognition["scores"] == {"knn": "scores/knn"}
    assert recognition["detector"] == {"model": "colours_detector", "known": 1}
    assert recognition["range"] == [-4.0, 4.0]
    assert served.contract["summary"] == "Colours."
    assert served.contract["example"] == {"signature": "serving_default", "inputs": {"reading": [0.0] * 7}}
    assert {*served.signatures["recognize"].outputs} == {"logits", "features", "scores/knn"}
    assert (out / "assets.extra" / "note.txt").read_text() == "hello"


def test_without_methods_there_are_logits_alone(trained, tmp_path, serve, quick_verification):
    served = serve(export_recognizer(trained, WIDE, data(), tmp_path / "1", classes=CLASSES, methods=()))
    assert {*served.contract["signatures"]} == {"serving_default"}
    assert {*served.contract["recognition"]} == {"signature", "logits", "classes", "range"}


def test_whole_numbers_have_no_range(tmp_path, serve, quick_verification):
    """Places of words in a vocabulary have no scale that could be another."""
    stack = [keras.Input((3,), dtype="int32", name="places"), layers.Embedding(9, 4), layers.Flatten(name=WIDE)]
    words = np.random.default_rng(0).integers(0, 9, (30, 3), dtype=np.int32), np.arange(30) % 3
    model = keras.Sequential([*stack, layers.Dense(3)])
    served = serve(export_recognizer(model, WIDE, words, tmp_path / "1", classes=CLASSES, methods=["knn"]))
    assert "range" not in served.contract["recognition"]


@pytest.mark.parametrize(
    "head",
    [
        lambda: [layers.Dense(3, "softmax")],
        lambda: [layers.Dense(3), layers.Softmax()],
        lambda: [layers.Dense(3), layers.Activation("softmax")],
        lambda: [layers.Dense(3, "softmax", use_bias=False)],
    ],
)
def test_a_softmax_at_the_end_is_taken_off(tmp_path, serve, quick_verification, head):
    model = keras.Sequential([keras.Input((7,), name="reading"), layers.Dense(UNITS, "tanh", name=WIDE), *head()])
    served = serve(export_recognizer(model, WIDE, data(), tmp_path / "1", classes=CLASSES, methods=["react", "vim"]))
    logits = served.call("serving_default", {"reading": strange()})["logits"]
    assert (logits < 0).any()
    np.testing.assert_allclose(softmax(logits, axis=1), np.asarray(model(strange())), atol=1e-5)


def test_the_other_class_is_left_out_of_energies_and_named_by_its_place(tmp_path, serve, quick_verification):
    model = network(layers.Dense(4))
    served = serve(
        export_recognizer(
            model, WIDE, data(), tmp_path / "1", classes=Classes(CLASSES.names, other=True), methods=["react", "vim"],
            options=ScoreOptions(percentile=100),
        )
    )  # fmt: skip
    assert served.contract["recognition"]["other"] == 3
    x = data()[0]
    answer = served.call("recognize", {"reading": x})
    assert answer["logits"].shape == (len(x), 4)
    np.testing.assert_allclose(answer["scores/react"], -logsumexp(answer["logits"][:, :3], axis=1), **CLOSE)


def test_output_codes_have_scores_of_features_only(tmp_path, serve, quick_verification):
    codes = [[0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1]]
    model = network(layers.Dense(5))
    served = serve(export_recognizer(model, WIDE, data(), tmp_path / "1", classes=Classes(CLASSES.names, codes=codes)))
    recognition = served.contract["recognition"]
    assert recognition["codes"] == codes
    assert {*recognition["scores"]} == {"mahalanobis", "relative_mahalanobis", "knn"}
    with pytest.raises(ExportError, match=r"method 'vim': .*output codes"):
        export_recognizer(
            model, WIDE, data(), tmp_path / "2", classes=Classes(CLASSES.names, codes=codes), methods=["vim"]
        )


def test_a_head_of_several_layers_has_all_scores(tmp_path, serve, quick_verification):
    model = network(layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dense(3))
    served = serve(
        export_recognizer(model, WIDE, data(), tmp_path / "1", classes=CLASSES, options=ScoreOptions(percentile=100))
    )
    answer = served.call("recognize", {"reading": data()[0]})
    np.testing.assert_allclose(answer["scores/react"], -logsumexp(answer["logits"], axis=1), **CLOSE)
    assert np.isfinite(answer["scores/vim"]).all()


def test_several_inputs_go_by_name(tmp_path, serve, quick_verification):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    features = layers.Dense(5, "tanh", name=WIDE)(layers.Concatenate()([left, right]))
    model = keras.Model([left, right], layers.Dense(3)(features))
    x, labels = data()
    inputs = {"right": x[:, 4:], "left": x[:, :4]}
    served = serve(export_recognizer(model, WIDE, (inputs, labels), tmp_path / "1", classes=CLASSES, methods=["knn"]))
    answer = served.call("recognize", inputs)
    np.testing.assert_allclose(answer["logits"], np.asarray(model([inputs["left"], inputs["right"]])), atol=1e-5)
    with pytest.raises(ExportError, match=r"training data of left: expected each input by name \(left, right\)"):
        export_recognizer(model, WIDE, ({"left": x[:, :4]}, labels), tmp_path / "2", classes=CLASSES)


def test_a_bank_keeps_rows_of_every_class_and_covers_them():
    random = np.random.default_rng(4)
    centres = random.normal(size=(6, 5)) * 4
    labels = np.repeat([0, 1], 300)
    features = centres[np.arange(600) % 3 + 3 * labels] + random.normal(0, 0.05, (600, 5))
    kept = bank(features, labels, 3)
    assert len(kept) == 6
    assert all((row == features).all(axis=1).any() for row in kept)
    distances = np.linalg.norm(normalised(features)[:, None] - normalised(kept), axis=2).min(axis=1)
    assert distances.max() < 0.2
    np.testing.assert_array_equal(bank(features, labels, 300), features)
    assert len(bank(np.ones((50, 3)), np.zeros(50, int), 4)) == 1


def test_every_export_chooses_the_same_bank():
    features = np.random.default_rng(5).normal(size=(200, 4))
    labels = np.arange(200) % 3
    np.testing.assert_array_equal(bank(features, labels, 10), bank(features, labels, 10))


def refused(tmp_path: Path, match: str, model: keras.Model, *, layer: str = WIDE, given=None, **more) -> None:
    with pytest.raises(ExportError, match=match):
        export_recognizer(model, layer, given or data(), tmp_path / "models" / "1", **({"classes": CLASSES} | more))
    assert [*tmp_path.iterdir()] == []


def test_a_layer_that_does_not_exist_is_refused_with_those_there_are(tmp_path, trained):
    refused(
        tmp_path, rf"features layer 'hiden': expected a layer of '\w+' \({WIDE}, dense\w*\)", trained, layer="hiden"
    )


def test_features_that_are_pictures_are_refused(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name=WIDE), layers.Flatten(), layers.Dense(3)]
    )
    refused(tmp_path, r"expected an output of \[batch, d\], got \[batch, 6, 6, 2\]", model)


@pytest.mark.parametrize("shift", [1, -1, 5])
def test_labels_that_do_not_count_from_zero_are_refused(tmp_path, trained, shift):
    x, labels = data()
    refused(tmp_path, r"labels: expected int \[n\] with each of 0 … 2", trained, given=(x, labels + shift))


def test_a_class_without_rows_is_refused(tmp_path, trained):
    x, labels = data()
    refused(tmp_path, r"got 0, 1 in \[160\]", trained, given=(x[labels < 2], labels[labels < 2]))


def test_rows_without_labels_are_refused(tmp_path, trained):
    x, labels = data()
    refused(
        tmp_path, r"'reading': expected a row for each of the 230 labels, got 240", trained, given=(x, labels[:230])
    )


@pytest.mark.parametrize("method", ["mahalanobis", "relative_mahalanobis", "vim"])
def test_fewer_rows_than_dimensions_are_refused_where_a_method_needs_them(tmp_path, trained, method):
    few = tuple(each[:9] for each in data())
    match = rf"'{method}': expected as many training rows as features have dimensions \(12\), got 9"
    refused(tmp_path, match, trained, given=few, methods=[method])


def test_more_neighbours_than_rows_are_refused(tmp_path, trained):
    options = ScoreOptions(neighbours=7, rows_per_class=2)
    refused(tmp_path, r"'knn': expected 7 rows or more in the bank, got 6", trained, methods=["knn"], options=options)


@pytest.mark.parametrize("principal", [0, 12])
def test_as_many_principal_directions_as_dimensions_are_refused(tmp_path, trained, principal):
    options = ScoreOptions(principal=principal)
    refused(tmp_path, r"'vim': expected from 1 to 11 principal directions", trained, methods=["vim"], options=options)


def test_features_that_are_all_the_same_have_no_covariance(tmp_path):
    model = keras.Sequential(
        [keras.Input((7,)), layers.Dense(4, kernel_initializer="zeros", name=WIDE), layers.Dense(3)]
    )
    refused(tmp_path, r"'mahalanobis': expected a covariance with an inverse", model, methods=["mahalanobis"])


def test_a_class_that_is_never_right_has_no_pattern(tmp_path, trained):
    x, labels = data()
    refused(tmp_path, r"'she': .* none of class \d", trained, given=(x, (labels + 1) % 3), methods=["she"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_the_row(tmp_path, trained, wrong):
    x, labels = data()
    x = x.copy()
    x[17] = wrong
    refused(
        tmp_path,
        r"features of layer 'hidden': .* 1 of 240 rows .* row 17",
        trained,
        given=(np.where(x == np.inf, np.nan, x), labels),
    )


def test_logits_that_are_not_as_many_as_classes_are_refused(tmp_path, trained):
    classes = Classes(("red", "green", "blue"), other=True)
    refused(tmp_path, r"logits: expected 4 of them .*, got 3", trained, classes=classes)


@pytest.mark.parametrize("names", [["no", "yes"], ["yes"]])
def test_one_logit_is_refused_however_many_classes_are_named(tmp_path, names):
    model = keras.Sequential([keras.Input((7,)), layers.Dense(1, "sigmoid")])
    with pytest.raises(ExportError, match=r"got 1, which answers yes or no; end the model in Dense\(2, activation="):
        export_recognizer(model, None, None, tmp_path / "1", classes=Classes(names))


def test_another_activation_at_the_end_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((7,)), layers.Dense(5, name=WIDE), layers.Dense(3, "relu", name="top")])
    refused(tmp_path, r"layer 'top': expected logits, .* got the activation 'relu'", model)


def test_probabilities_that_cannot_be_undone_are_refused(tmp_path):
    entry = keras.Input((7,))
    features = layers.Dense(5, name=WIDE)(entry)
    each = [layers.Dense(3, "softmax")(features) for _ in range(2)]
    refused(tmp_path, r"values before a softmax, got probabilities", keras.Model(entry, layers.Average()(each)))


def test_react_needs_logits_of_the_features_alone(tmp_path):
    entry = keras.Input((7,))
    features = layers.Dense(5, name=WIDE)(entry)
    model = keras.Model(entry, layers.Dense(3)(layers.Concatenate()([features, entry])))
    refused(tmp_path, r"'react': expected logits that are computed of the features alone", model, methods=["react"])


def test_an_unknown_method_is_refused(tmp_path, trained):
    refused(tmp_path, r"method 'odin': expected one of mahalanobis, .*, react$", trained, methods=["odin"])


def test_a_model_with_two_outputs_is_refused(tmp_path):
    entry = keras.Input((7,))
    model = keras.Model(entry, [layers.Dense(3)(entry), layers.Dense(3)(entry)])
    refused(tmp_path, r"with one output \[batch, class\]", model)


def test_the_model_is_left_as_it_was(trained, exported):
    assert [layer.name for layer in trained.layers] == [WIDE, trained.layers[-1].name]
    assert json.loads((exported / "assets.extra" / "contract.json").read_text())["recognition"]["classes"]
