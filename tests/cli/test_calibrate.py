"""`sluice calibrate` against a gateway made up for the test, whose models are a few lines of numpy."""

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import stats

from sluice.cli.calibrate import picture
from sluice.cli.calibrate.fit import PREFERRED, Answers, fit
from sluice.policy.calibration_document import check_fits, parse_calibration
from sluice.policy.contract_document import parse_contract
from sluice.policy.recognition import Calibration, decide
from sluice.policy.scores import fit_openmax, fit_temperature
from tests.cli.conftest import Told, answering, told

CLASSES = ["cat", "dog", "owl"]
CENTRES = np.array([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]])
METHODS = ["top_probability", "max_logit", "energy", "entropy", "margin", "gen", "openmax", "knn"]
Calibrate = Callable[..., Told]


def tensor(*sizes: int, dtype: str = "float32") -> dict[str, Any]:
    axes = [{"name": "batch"}, *({"name": f"axis_{i}", "size": size} for i, size in enumerate(sizes))]
    return {"dtype": dtype, "axes": axes}


def contract(**fields: Any) -> dict[str, Any]:
    given = {"kind": "rows", "inputs": {"picture": tensor(2, 2)}}
    outputs = {"logits": tensor(3)}
    return {
        "schema": 1,
        "summary": "three animals",
        "signatures": {
            "serving_default": {**given, "outputs": outputs},
            "recognize": {**given, "outputs": {**outputs, "scores/knn": tensor()}},
        },
        "recognition": {
            "signature": "serving_default",
            "logits": "logits",
            "classes": CLASSES,
            "scores_signature": "recognize",
            "scores": {"knn": "scores/knn"},
            **fields,
        },
    }


def rows_only(**inputs: Any) -> dict[str, Any]:
    """A contract without scores, of a model with other inputs."""
    given = contract()
    given["signatures"] = {"serving_default": {"kind": "rows", "inputs": inputs, "outputs": {"logits": tensor(3)}}}
    for key in ("scores", "scores_signature"):
        del given["recognition"][key]
    return given


def fine() -> dict[str, Any]:
    """A model of text with logits of 64 bits."""
    given = rows_only(word=tensor(dtype="string"))
    given["signatures"]["serving_default"]["outputs"] = {"logits": tensor(3, dtype="float64")}
    return given


def front() -> dict[str, Any]:
    """A detector's contract: two logits, the second says known."""
    return {
        "schema": 1,
        "summary": "",
        "signatures": {
            "serving_default": {"kind": "rows", "inputs": {"picture": tensor(2, 2)}, "outputs": {"logits": tensor(2)}}
        },
        "recognition": {"signature": "serving_default", "logits": "logits", "classes": ["unknown", "known"]},
    }


def plain() -> dict[str, Any]:
    without = contract()
    del without["recognition"]
    return without


CONTRACTS: dict[str, Any] = {
    "animals": contract(range=[-8, 8]),
    "guarded": contract(detector={"model": "front", "known": 1}),
    "misguarded": contract(detector={"model": "animals", "known": 1}),
    "unguarded": contract(detector={"model": "plants", "known": 1}),
    "goneguard": contract(detector={"model": "gone", "known": 1}),
    "front": front(),
    "plain": plain(),
    "bare": None,
    "future": {"schema": 2},
    "wrong": contract(),
    "wide": rows_only(picture=tensor(3200)),
    "fine": fine(),
    "words": rows_only(word=tensor(dtype="string")),
    "silent": contract(),
    "busy": contract(),
    "endless": contract(),
    "narrow": contract(),
    "series": rows_only(series={"dtype": "float32", "axes": [{"name": "batch"}, {"name": "time"}]}),
    "mended": contract(),
}
LATER = {"silent": (503, {"error": "The model server does not answer."}, 3600), "busy": (429, {"error": "Full."}, 3600)}


DTYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "string": "DT_STRING"}


def metadata(contract: Any) -> dict[str, Any]:
    """TensorFlow Serving's metadata of the signatures of a contract."""

    def tensors(named: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "dtype": DTYPES[each["dtype"]],
                "tensor_shape": {"dim": [{"size": axis.get("size", -1)} for axis in each["axes"]]},
            }
            for name, each in named.items()
        }

    signatures = {
        name: {key: tensors(each[key]) for key in ("inputs", "outputs")}
        for name, each in contract["signatures"].items()
    }
    return {"metadata": {"signature_def": {"signature_def": signatures}}}


STRANGE = {"endless": [1e300, 0.0, 0.0], "narrow": [1.0, 0.0]}


def model(name: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
    distances = np.linalg.norm(inputs.reshape(-1, 1, 4) - CENTRES, axis=2)
    if name == "front":
        return {"logits": np.stack([distances.min(axis=1), np.full(len(inputs), 2.0)], axis=1)}
    return {"logits": 8 - distances**2 / 2, "scores/knn": distances.min(axis=1)}


def answered(path: str, body: bytes) -> tuple[int, Any] | tuple[int, Any, int]:
    """What a gateway answers."""
    states = {name: ["END", "AVAILABLE"] for name in CONTRACTS} | {"gone": ["END"]}
    if path == "/v1/models":
        listed = {
            name: [{"version": str(3 + i), "state": state, "labels": []} for i, state in enumerate(own)]
            for name, own in states.items()
        }
        about = {"kinds": ["recognition"], "summary": ""}
        return 200, {"models": [{"name": name, "versions": versions, **about} for name, versions in listed.items()]}
    name = path.removeprefix("/v1/models/").partition("/")[0]
    if path.endswith("/contract?version=4"):
        return 200, {"contract": CONTRACTS[name], "shapes": {}}
    if path.endswith("/versions/4/metadata"):
        return 200, metadata(CONTRACTS[name])
    if name in LATER:
        return LATER[name]
    assert path.endswith("/versions/4:predict")
    request = json.loads(body)
    if name in ("words", "fine"):
        lengths = [len(base64.b64decode(word["b64"])) for word in request["inputs"]["word"]]
        if name == "fine":
            return 200, {"outputs": [[length / 3, 0, 0] for length in lengths]}
        return 200, {"outputs": [[length * (place + 1.0) for place in range(3)] for length in lengths]}
    if name == "wide":
        return 200, {"outputs": [[0.0] * 3] * (len(request["inputs"]["picture"]) + 1)}
    if name == "series":
        return 400, {"error": "Rows need one time step or more."}
    outputs = model(name, np.array(request["inputs"]["picture"], np.float32))
    if name in STRANGE:
        outputs["logits"] = np.array([STRANGE[name]] * len(outputs["logits"]))
    chosen = outputs if request["signature_name"] == "recognize" else {"logits": outputs["logits"]}
    written = {
        output: array.astype(np.float64 if name in STRANGE else np.float32).tolist() for output, array in chosen.items()
    }
    if name == "wrong":
        return 200, {"outputs": {output: values[1:] for output, values in written.items()}}
    return 200, {"outputs": written if len(written) > 1 else written["logits"]}


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with answering(answered) as address:
        yield address


@pytest.fixture
def calibrate(gateway: str, tmp_path: Path) -> Calibrate:
    return partial(told, "calibrate", "--url", f"{gateway}/", "--calibrations", tmp_path / "calibrations")


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Known rows, float32 `[count, 2, 2]`, and the places of their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return (CENTRES[labels] + rng.normal(scale=1.5, size=(count, 4))).astype(np.float32).reshape(-1, 2, 2), labels


def strangers(seed: int, count: int) -> np.ndarray:
    """Rows that lie apart from all classes."""
    away = np.array([0.0, 0, 0, 5]) + np.random.default_rng(seed).normal(size=(count, 4))
    return away.astype(np.float32).reshape(-1, 2, 2)


@pytest.fixture
def known(tmp_path: Path) -> Path:
    pictures, labels = rows(0, 300)
    np.savez(tmp_path / "known.npz", x=pictures, label=labels)
    return tmp_path / "known.npz"


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    np.savez(tmp_path / "unknown.npz", picture=strangers(1, 200))
    return tmp_path / "unknown.npz"


def written(folder: Path, name: str = "animals") -> Calibration:
    [file] = (folder / "calibrations").iterdir()
    assert file.name == f"{name}-4.json"
    return parse_calibration(json.loads(file.read_text()))


def test_a_calibration_is_what_the_served_model_answers_to_the_rows(
    calibrate: Calibrate, tmp_path: Path, known: Path
) -> None:
    result = calibrate("animals", "--known", known)
    assert result.code == 0, result.error
    made = written(tmp_path)
    check_fits(made, "animals", 4, parse_contract(CONTRACTS["animals"]).recognition)
    assert (made.rows, made.level, made.default_method) == (300, 0.05, "knn")
    assert list(made.methods) == METHODS
    pictures, labels = rows(0, 300)
    outputs = model("animals", pictures)
    for method, expected in (("knn", outputs["scores/knn"]), ("max_logit", -outputs["logits"].max(axis=1))):
        assert made.methods[method].scores == pytest.approx(np.sort(expected), abs=1e-4)
    assert "animals version 4: 300 known rows" in result.text
    assert f"{(outputs['logits'].argmax(axis=1) == labels).mean():.2%} of them answered right" in result.words
    assert "Default method (*): knn, which is best in published comparisons; with --unknown" in result.words
    assert f"{made.methods['knn'].threshold(0.05):.4g}" in result.text


def test_what_is_fitted_and_what_is_compared_are_not_the_same_rows(
    calibrate: Calibrate, tmp_path: Path, known: Path
) -> None:
    calibrate("animals", "--known", known)
    made = written(tmp_path)
    halves = {len(made.methods[method].scores) for method in ("top_probability", "entropy", "margin", "openmax")}
    assert halves == {len(made.set_scores)} == {sum(count // 2 for count in np.bincount(rows(0, 300)[1]))}
    assert {len(made.methods[method].scores) for method in ("max_logit", "energy", "gen", "knn")} == {300}
    pictures, labels = rows(0, 300)
    half = np.sort(np.concatenate([np.flatnonzero(labels == place)[::2] for place in range(3)]))
    logits = model("animals", pictures)["logits"].astype(np.float32)[half]
    assert made.temperature == pytest.approx(fit_temperature(logits, labels[half]), rel=1e-3)
    assert made.openmax.weibull == pytest.approx(fit_openmax(logits, labels[half], tail=3).weibull, rel=1e-3)


@pytest.mark.parametrize("by_class", [False, True])
def test_knowns_that_come_later_are_rejected_as_seldom_as_the_level_says(by_class: bool) -> None:
    recognition = parse_contract(CONTRACTS["animals"]).recognition
    rejected = dict.fromkeys(METHODS, 0)
    for seed in range(30):
        (pictures, labels), (later, _) = rows(seed, 200), rows(1000 + seed, 100)
        answers, today = (
            Answers(each["logits"], {"knn": each["scores/knn"]})
            for each in (model("animals", pictures), model("animals", later))
        )
        blank = Calibration("animals", 4, "", 0.1, 200, "", "", 1.0, {})
        fitted = fit(recognition, blank, METHODS, answers, labels, None, every=False, by_class=by_class)
        for method in METHODS:
            found = decide(recognition, fitted.calibration, method, 0.1, today.logits, today.scores)
            rejected[method] += sum(not each.known for each in found)
    # Rows of one calibration share its luck: the count's deviation is that of a beta-binomial, here twice a binomial's.
    most = stats.norm.isf(0.001) * 2 * np.sqrt(3000 * 0.1 * 0.9) + 300
    assert max(rejected.values()) < most
    assert min(rejected.values()) > 100


def test_methods_are_compared_as_they_decide_by_class_where_each_class_has_a_threshold() -> None:
    recognition = parse_contract(CONTRACTS["animals"]).recognition
    labels = np.arange(90) % 3
    logits, answered = 8.0 * np.eye(3)[labels], 8.0 * np.eye(3)[np.zeros(40, int)]
    by_class = np.linspace(0, 1, 90) + 10 * labels  # cats look least strange, and are what the unknown rows look like
    known, unknown = Answers(logits, {"knn": by_class}), Answers(answered, {"knn": np.full(40, 5.0)})
    blank = Calibration("animals", 4, "", 0.1, 90, "", "", 1.0, {})
    one, each = (
        fit(recognition, blank, ["knn"], known, labels, unknown, every=False, by_class=by_class).measures["knn"]
        for by_class in (False, True)
    )
    assert (one.auroc, one.oscr) == pytest.approx((1 / 3, 1 / 3))
    assert (each.auroc, each.oscr, each.unknown_accepted_at_95_known_accepted) == (1, 1, 0)


def test_with_unknown_rows_methods_are_measured_and_the_best_becomes_the_default(
    calibrate: Calibrate, tmp_path: Path, known: Path, unknown: Path
) -> None:
    result = calibrate("animals", "--known", known, "--unknown", unknown, "--method", "all", "--level", "0.1")
    assert result.code == 0, result.error
    made = written(tmp_path)
    assert made.level == 0.1
    assert list(made.unknown) == METHODS
    outputs, strange = model("animals", rows(0, 300)[0]), model("animals", strangers(1, 200))
    pairs = stats.mannwhitneyu(strange["scores/knn"], outputs["scores/knn"]).statistic / (300 * 200)
    assert made.unknown["knn"]["auroc"] == pytest.approx(pairs, abs=1e-4)
    best = max(made.unknown, key=lambda method: (made.unknown[method]["auroc"], -PREFERRED.index(method)))
    assert made.default_method == best
    assert f"Default method (*): {best}, the greatest AUROC" in result.words
    assert "accepts 95 % of known rows. Known rejected: with one that rejects 95 % of unknown rows" in result.words
    assert f"{made.unknown['knn']['auroc']:.4f}" in result.text
    assert f"\n{best} * " in result.text


def test_two_methods_may_be_asked_to_agree(calibrate: Calibrate, tmp_path: Path, known: Path, unknown: Path) -> None:
    result = calibrate("animals", "--known", known, "--unknown", unknown, "--method", "knn+entropy")
    assert result.code == 0, result.error
    made = written(tmp_path)
    assert (made.default_method, set(made.methods), set(made.unknown)) == (
        "knn+entropy",
        {"knn", "entropy"},
        {"knn+entropy"},
    )
    assert made.unknown["knn+entropy"]["auroc"] > 0.9
    assert "each its own" in result.text


def test_each_class_may_have_a_threshold(calibrate: Calibrate, tmp_path: Path, known: Path) -> None:
    result = calibrate("animals", "--known", known, "--method", "knn", "--by-class")
    assert result.code == 0, result.error
    by_class = written(tmp_path).methods["knn"].by_class
    assert set(by_class) == set(CLASSES)
    assert sum(map(len, by_class.values())) == 300
    assert "by class" in result.text


def test_a_detector_is_asked_with_the_same_rows(
    calibrate: Calibrate, tmp_path: Path, known: Path, unknown: Path
) -> None:
    result = calibrate("guarded", "--known", known, "--unknown", unknown, "--method", "detector", "--method", "gen")
    assert result.code == 0, result.error
    made = written(tmp_path, "guarded")
    logits = model("front", rows(0, 300)[0])["logits"]
    assert made.methods["detector"].scores == pytest.approx(np.sort(1 / (1 + np.exp(2 - logits[:, 0]))), abs=1e-5)
    refused = calibrate("misguarded", "--known", known)
    assert (refused.code, "expected a detector with two logits" in refused.reason) == (1, True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unguarded", "plants: expected a served model, one of animals,"),
        ("goneguard", "gone: expected a version that is"),
    ],
)
def test_a_detector_that_is_not_served_is_left_out_of_all_and_refused_by_name(
    calibrate: Calibrate, tmp_path: Path, known: Path, name: str, reason: str
) -> None:
    result = calibrate(name, "--known", known)
    assert result.code == 0, result.error
    assert f"Left out: detector. Its model is not served; {reason}" in result.words
    assert list(written(tmp_path, name).methods) == METHODS
    refused = calibrate(name, "--known", known, "--method", "knn+detector")
    assert (refused.code, reason in refused.reason) == (1, True)


@pytest.mark.parametrize(("suffix", "with_unknown"), [(".png", True), (".svg", False)])
def test_scores_are_drawn(
    calibrate: Calibrate, tmp_path: Path, known: Path, unknown: Path, suffix: str, with_unknown: bool
) -> None:
    plot = tmp_path / "plots" / f"scores{suffix}"
    more = ("--unknown", unknown) if with_unknown else ()
    result = calibrate("animals", "--known", known, *more, "--plot", plot)
    assert result.code == 0, result.error
    assert plot.stat().st_size > 10_000


def test_a_calibration_is_written_even_if_it_cannot_be_drawn(
    calibrate: Calibrate, tmp_path: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(picture, "draw", full)
    plot = tmp_path / "plot.png"
    result = calibrate("animals", "--known", known, "--method", "gen", "--plot", plot)
    assert (result.code, f"--plot: {plot} cannot be written; " in result.reason) == (1, True)
    file = tmp_path / "calibrations" / "animals-4.json"
    assert result.reason.endswith(f"The calibration is in {file}")
    assert written(tmp_path).default_method == "gen"


def put(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_rows_are_read_alike_from_every_kind_of_file_and_from_a_folder(
    calibrate: Calibrate, tmp_path: Path, known: Path
) -> None:
    pictures, labels = rows(0, 300)
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [{"picture": each.tolist(), "label": CLASSES[label]} for each, label in zip(pictures, labels, strict=True)]
    put(folder, "a.jsonl", "\n".join(map(json.dumps, lines[:100])) + "\n\n")
    head = "label,p0,p1,p2,p3\n"
    cells = [
        ",".join([CLASSES[i], *map(repr, each.ravel().tolist())]) for each, i in zip(pictures, labels, strict=True)
    ]
    put(folder, "b.csv", head + "\n".join(cells[100:200]))
    np.savez(folder / "c.npz", picture=pictures[200:250], label=np.array(CLASSES)[labels[200:250]])
    named = [CLASSES[label] for label in labels[250:]]
    parquet.write_table(pa.table({"label": named, "picture": pictures[250:].tolist()}), folder / "d.parquet")
    put(folder, "readme.txt", "not data")
    calibrate("animals", "--known", known)
    plain = written(tmp_path)
    assert calibrate("animals", "--known", folder).code == 0
    mixed = written(tmp_path)
    assert mixed.checksum != plain.checksum
    for method in METHODS:
        assert mixed.methods[method].scores.tolist() == plain.methods[method].scores.tolist()


def test_a_calibration_replaces_the_one_before_and_leaves_nothing_else(
    calibrate: Calibrate, tmp_path: Path, known: Path
) -> None:
    for level in (0.05, 0.2):
        calibrate("animals", "--known", known, "--method", "gen", "--level", level)
        assert written(tmp_path).level == level


def test_a_calibration_that_cannot_be_written_leaves_nothing(calibrate: Calibrate, tmp_path: Path, known: Path) -> None:
    taken = tmp_path / "calibrations" / "animals-4.json"
    taken.mkdir(parents=True)
    result = calibrate("animals", "--known", known, "--method", "gen")
    assert (result.code, f"--calibrations: {taken} cannot be written; " in result.reason) == (1, True)
    assert [*taken.parent.iterdir()] == [taken]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("plants", 1, "plants: expected a served model, one of animals, "),
        ("gone", 1, "gone: expected a version that is available; there is none now"),
        ("plain", 1, "plain version 4: expected a contract that names classes; it has none. Export"),
        ("bare", 1, "`sluice export FILE.keras --out DIR/NAME/VERSION --classes A,B,…`"),
        ("future", 1, "contract.schema: expected 1, got 2"),
        ("wrong", 1, "expected 64 rows of logits; got shape [63, 3]"),
        ("endless", 1, "endless: The model answered 'logits' that are not finite."),
        ("narrow", 1, "narrow: The model must answer 'logits' of shape [batch, 3]; [300, 2] came."),
        ("silent", 3, " answered 503: The model server does not answer."),
        ("busy", 1, " answered 429: Full."),
    ],
)
def test_a_model_that_cannot_be_calibrated_is_refused(
    calibrate: Calibrate, known: Path, name: str, code: int, reason: str
) -> None:
    result = calibrate(name, "--known", known)
    assert (result.code, result.text) == (code, "")
    assert reason in result.reason
    assert "GET /v1/models" not in result.reason  # which answers nothing of this


def test_rows_without_numbers_are_the_gateways_to_refuse(calibrate: Calibrate, tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz", x=np.zeros((2, 0)), label=[0, 1])
    assert "Rows need one time step or more." in calibrate("series", "--known", tmp_path / "none.npz").reason


@pytest.mark.parametrize("method", ["all", "max_logit", "top_probability"])
@pytest.mark.parametrize("with_unknown", [False, True])
def test_a_row_of_each_class_is_too_little(
    calibrate: Calibrate, tmp_path: Path, unknown: Path, method: str, with_unknown: bool
) -> None:
    np.savez(tmp_path / "few.npz", x=CENTRES.reshape(-1, 2, 2), label=np.arange(3))
    more = ("--unknown", unknown) if with_unknown else ()
    result = calibrate("animals", "--known", tmp_path / "few.npz", *more, "--method", method, "--level", 0.5)
    assert (result.code, "A calibration takes two rows or more of a class" in result.reason) == (1, True)
    assert "3 known rows came, no two of one class. Give more rows with --known." in result.reason


SIX = "6 known rows came; {} The level 0.05 takes 19 or more{} to compare with. Give more rows with --known, or a"
HALF = "compares with 3 of them, as the others are for its fit."


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            (),
            SIX.format("max_logit compares with 6 of them (top_probability, entropy, margin, openmax: 3, as the others "
            "are for their fit).", "") + " --level of 0.1429 or more.",
        ),
        (("--method", "knn"), SIX.format("knn compares with 6 of them.", "") + " --level of 0.1429 or more."),
        (("--method", "margin"), SIX.format(f"margin {HALF}", "") + " --level of 0.25 or more."),
        (
            ("--method", "knn", "--by-class"),
            SIX.format("knn compares with 2 of them.", " of each class") + " --level of 0.3334 or more.",
        ),
        (
            ("--method", "gen+margin"),
            SIX.replace("0.05 takes 19", "0.05 of 2 methods that must agree takes 39").format(f"gen+margin {HALF}", "")
            + " --level of 0.5 or more.",
        ),
    ],
)  # fmt: skip
def test_of_few_rows_it_is_told_how_many_came_what_for_and_how_many_are_needed(
    calibrate: Calibrate, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    np.savez(tmp_path / "few.npz", x=np.repeat(CENTRES, 2, axis=0).reshape(-1, 2, 2), label=np.arange(6) // 2)
    result = calibrate("animals", "--known", tmp_path / "few.npz", *options)
    assert (result.code, result.reason) == (1, f"sluice: animals: {told}")


def test_a_folder_is_told_as_it_is_called(calibrate: Calibrate, tmp_path: Path, known: Path) -> None:
    result = calibrate("animals", "--known", known, "--calibrations", tmp_path / "[red]" / "a[/b]")
    assert result.code == 0, result.error
    assert f"Written: {tmp_path}/[red]/a[/b]/animals-4.json" in result.text


def test_logits_of_64_bits_are_compared_as_they_are(calibrate: Calibrate, tmp_path: Path) -> None:
    inputs = np.array([["a" * (number + 1)] for number in range(30)])
    np.savez(tmp_path / "words.npz", x=inputs[:, 0], label=np.zeros(30, int))
    result = calibrate("fine", "--known", tmp_path / "words.npz", "--method", "max_logit")
    assert result.code == 0, result.error
    assert written(tmp_path, "fine").methods["max_logit"].scores.tolist() == [(number - 30) / 3 for number in range(30)]


def test_rows_are_sent_again_to_a_gateway_that_is_busy_or_away_for_a_moment(tmp_path: Path, known: Path) -> None:
    troubles: list[Any] = [(429, {"error": "Full."}, 0), (0, None), (503, {"error": "Restarting."}, 0), (503, None)]

    def at_times(path: str, body: bytes) -> tuple[int, Any] | tuple[int, Any, int]:
        return troubles.pop(0) if body and troubles else answered(path, body)

    with answering(at_times) as address:
        result = told("calibrate", "mended", "--known", known, "--url", address, "--calibrations", tmp_path / "made")
    assert result.code == 0, result.error
    assert not troubles
    made = parse_calibration(json.loads((tmp_path / "made" / "mended-4.json").read_text()))
    expected = np.sort(-model("mended", rows(0, 300)[0])["logits"].max(axis=1))
    assert made.methods["max_logit"].scores == pytest.approx(expected, abs=1e-4)


def test_rows_of_many_numbers_are_sent_fewer_at_a_time(calibrate: Calibrate, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", x=np.zeros((70, 3200), np.float32), label=np.zeros(70, int))
    assert "expected 62 rows of logits; got shape [63, 3]" in calibrate("wide", "--known", tmp_path / "wide.npz").reason


def test_text_is_sent_as_text(calibrate: Calibrate, tmp_path: Path) -> None:
    words = ["a" * (number + 1) for number in range(30)]
    lines = [json.dumps({"word": word, "label": "owl"}) for word in words]
    result = calibrate("words", "--known", put(tmp_path, "words.jsonl", "\n".join(lines)), "--method", "max_logit")
    assert result.code == 0, result.error
    assert written(tmp_path, "words").methods["max_logit"].scores.tolist() == [-3.0 * (30 - n) for n in range(30)]


def test_without_a_gateway_the_reason_is_said(tmp_path: Path, known: Path) -> None:
    result = told("calibrate", "animals", "--known", known, "--url", "http://127.0.0.1:9")
    assert result.code == 3
    assert "expected a gateway there" in result.reason


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--level", "0"), 2, "--level: expected a share of rows between 0 and 1, got 0"),
        (("--level", "1"), 2, "--level: expected a share"),
        (("--plot", "x.gif"), 2, "--plot: expected a file that ends in .png or .svg, got x.gif"),
        (("--method", "odin"), 1, '"method" is one of top_probability'),
        (("--method", "all", "--method", "knn"), 1, "got 'all'"),
        (("--level", "0.001"), 1, "300 known rows came; max_logit compares with 300 of them"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(
    calibrate: Calibrate, tmp_path: Path, known: Path, options: tuple[str, ...], code: int, reason: str
) -> None:
    result = calibrate("animals", "--known", known, *options)
    assert result.code == code
    assert reason in result.reason
    assert not (tmp_path / "calibrations").exists()


def test_a_method_that_cannot_be_fitted_is_left_out_of_all_and_refused_by_name(
    calibrate: Calibrate, tmp_path: Path
) -> None:
    labels = np.arange(100) % 2  # no owl, and none that looks like one
    np.savez(tmp_path / "two.npz", x=CENTRES[labels].reshape(-1, 2, 2), label=labels)
    result = calibrate("animals", "--known", tmp_path / "two.npz")
    assert result.code == 0, result.error
    assert (
        "Left out: openmax. OpenMax takes rows of each class that are answered right; class 2 has none." in result.words
    )
    assert "openmax" not in written(tmp_path).methods
    assert "class 2 has none" in calibrate("animals", "--known", tmp_path / "two.npz", "--method", "openmax").reason
    by_class = calibrate("animals", "--known", tmp_path / "two.npz", "--method", "knn", "--by-class")
    assert "the model answered 'owl' for none" in by_class.reason


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("a.parquet", "", "expected a Parquet file"),
        ("a.txt", "", "expected a file that ends in .npz, .csv, .jsonl, .parquet, or a folder of them"),
        ("a.npz", "text", "expected arrays, as `numpy.savez` writes them"),
        ("a.jsonl", "", "expected the input picture, float32 [batch, axis_0=2, axis_1=2]; got no rows"),
        ("a.jsonl", "{", "line 1: expected an object in JSON"),
        ("a.jsonl", '{"x": 1}\n\n{"y": 2}', "line 3: expected an object with the fields of line 1"),
        ("a.jsonl", "[1]", "line 1: expected an object with the fields of line 1"),
        ("a.jsonl", '{"x": [[1, 2], [3]], "label": 0}', "Input 'picture' takes float32"),
        ("a.jsonl", '{"x": [[1, 2], [3, 4]], "label": 0.5}', "expected 'label' to hold a name or a whole number"),
        ("a.jsonl", '{"x": [[1, 2], [3, 4]]}', "expected a label for each row, under the name `label`; got none"),
        ("a.jsonl", '{"x": [[1, 2], [3, 4]], "label": 3}', "expected labels of known classes, cat, dog, owl"),
        ("a.jsonl", '{"x": [[1, 2], [3, NaN]], "label": 0}', "takes finite numbers"),
        ("a.jsonl", '{"x": [[0, 0], [0, 255]], "label": 0}', "Row 0 of input 'picture' has values from 0 to 255"),
        ("a.csv", "", "expected the input picture"),
        ("a.csv", "a,a\n", "line 1: expected the columns' names, all different"),
        ("a.csv", "label,a,b,c,d\n0,1\n", "line 2: expected 5 values, as in line 1; got 2"),
        ("a.csv", "label,b,c\n0,1,2\n", "expected 4 columns for the input picture"),
        ("a.csv", "label,a,b,c,d\n0,1,2,3,x\n", "expected numbers for the input picture"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read_are_refused(
    calibrate: Calibrate, tmp_path: Path, file: str, text: str, reason: str
) -> None:
    result = calibrate("animals", "--known", put(tmp_path, file, text))
    assert result.code == 1
    assert f"{tmp_path / file}" in result.error
    assert reason in result.reason


def test_values_are_of_the_models_scale_by_the_gateways_own_rule(calibrate: Calibrate, tmp_path: Path) -> None:
    pictures, labels = rows(0, 100)
    for value, code in ((72, 0), (73, 1)):  # four times the width of -8 to 8 beyond its end
        pictures[7, 0, 0] = value
        np.savez(tmp_path / "bright.npz", x=pictures, label=labels)
        result = calibrate("animals", "--known", tmp_path / "bright.npz")
        assert (result.code, "Row 7 of input 'picture'" in result.reason) == (code, code == 1)


def test_a_folder_without_rows_or_with_labels_in_part_is_refused(calibrate: Calibrate, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert "or a folder of them" in calibrate("animals", "--known", folder).reason
    put(folder, "a.jsonl", '{"x": [[1, 2], [3, 4]], "label": 1}')
    put(folder, "b.jsonl", '{"x": [[1, 2], [3, 4]]}')
    assert "b.jsonl: expected labels, as the other files have them" in calibrate("animals", "--known", folder).reason
    assert "expected a file of rows" in calibrate("animals", "--known", tmp_path / "none.npz").reason
