"""`sluice explain`: people's own numbers, from a Keras file, an exported folder and a gateway."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import pytest

from sluice.export.imports import import_classes
from tests.cli.conftest import Told, answering
from tests.docs.pages import blocks

pytestmark = pytest.mark.timeout(900)  # the first test that needs the trained clips model trains it

Explain = Callable[..., Told]

CONTRACT = {
    "schema": 1,
    "summary": "Wind at the next hour",
    "signatures": {
        "step": {
            "kind": "step",
            "inputs": {"wind": {"dtype": "float32", "axes": [{"name": "batch"}, {"name": "feature", "size": 2}]}},
            "outputs": {"next": {"dtype": "float32", "axes": [{"name": "batch"}, {"name": "feature", "size": 1}]}},
            "states": [
                {"name": name, "input": name, "output": name, "dtype": dtype, "shape": shape, "initial": 0.5}
                for name, dtype, shape in (
                    ("lstm/h", "float32", [6]),
                    ("lstm/c", "float32", [6]),
                    ("gru/h", "float16", [5]),
                    ("memory/slots", "float32", [7, 3]),
                )
            ],
        },
        "serving_default": {
            "kind": "rows",
            "inputs": {
                "wind": {
                    "dtype": "float32",
                    "axes": [
                        {"name": "batch"},
                        {"name": "time", "meaning": "one hour"},
                        {"name": "feature", "size": 2},
                    ],
                }
            },
            "outputs": {"next": {"dtype": "float32", "axes": [{"name": "batch"}, {"name": "feature", "size": 1}]}},
        },
    },
    "example": {"signature": "step", "inputs": {"wind": [3.5, -1.0]}},
}  # fmt: skip
DATES = {
    "schema": 1,
    "summary": "",
    "signatures": {
        "encode": {
            "kind": "encode",
            "inputs": {
                "text": {
                    "dtype": "int32",
                    "axes": [{"name": "batch"}, {"name": "time", "ragged": True}],
                    "text": "utf-8",
                }
            },
            "outputs": {},
            "states": [{"name": "h", "input": "h", "output": "h", "dtype": "float32", "shape": [8]}],
            "lengths": {"time": "lengths"},
        },
        "decode": {
            "kind": "decode",
            "inputs": {"token": {"dtype": "int32", "axes": [{"name": "batch"}]}},
            "outputs": {"logits": {"dtype": "float32", "axes": [{"name": "batch"}, {"name": "token", "size": 3}]}},
            "states": [{"name": "h", "input": "h", "output": "h", "dtype": "float32", "shape": [8]}],
        },
    },
    "generation": {
        "encode": "encode", "decode": "decode", "input": "token", "logits": "logits",
        "start": 0, "end": 1, "max_steps": 9, "tokens": ["", "", "x"],
    },
    "example": {"signature": "encode", "inputs": {"text": "1 May"}},
}  # fmt: skip
SIGNATURES = {
    "serving_default": {
        "inputs": {"x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}]}}},
        "outputs": {"y": {"name": "y:0", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
}  # fmt: skip
ANSWERS: dict[str, tuple[int, Any]] = {
    "/v1/models/wind/contract": (200, {"contract": CONTRACT, "shapes": {}}),
    "/v1/models/dates/contract": (200, {"contract": DATES, "shapes": {}}),
    "/v1/models/plain/contract": (200, {"contract": None, "shapes": {}}),
    "/v1/models/plain/metadata": (200, {"metadata": {"signature_def": {"signature_def": SIGNATURES}}}),
    "/v1/models/empty/contract": (200, {"contract": None, "shapes": {}}),
    "/v1/models/empty/metadata": (200, {"metadata": {"signature_def": {"signature_def": {}}}}),
    "/v1/models/strange/metadata": (200, {"metadata": []}),
    "/v1/models/strange/contract": (200, {"contract": None, "shapes": {}}),
    "/v1/models/odd/contract": (200, ["another", "service"]),
    "/v1/models/old/contract": (200, {"contract": {"schema": 0}}),
    "/v1/models/nothing/contract": (404, {"error": "Model 'nothing' is not served.", "code": "model_not_found"}),
    "/v1/models/down/contract": (503, {"error": "The model server does not answer.", "code": "backend_unavailable"}),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """What a gateway answers to the paths that are read."""
    with answering(lambda path, _: ANSWERS.get(path, (500, None))) as address:
        yield address


def test_1000_temperatures_in_batches_of_100_are_ten_batches_of_100_rows(files: Path, explain: Explain) -> None:
    told = explain(files / "forecaster.keras", "--rows", 1000, "--batch-size", 100)
    assert told.code == 0
    assert "float32 [batch, time, feature=1]" in told.words
    assert "1000 rows at batch size 100: 10 batches of [100, time, 1]." in told.words
    assert "numbers, each a row [1000, 1, 1] 10 batches of [100, 1, 1]" in told.words
    assert "windows of T numbers [1000, T, 1] 10 batches of [100, T, 1]" in told.words
    assert "one series of 1000 numbers [1, 1000, 1] 1 batch of [1, 1000, 1]" in told.words
    # 4 gates of 4 units: 16 columns
    assert "hidden: LSTM(4) [100, 1] × [1, 16] [100, 4] × [4, 16] 4 gates × 4" in told.words
    assert "all 100 rows of a batch go in together, one number of each" in told.words
    assert "hidden/h last output of hidden [4] float32 0 16" in told.words
    assert "One session takes 32 bytes of state" in told.words  # 2 states of 4 numbers of 4 bytes
    assert "step [1] one time step" in told.words
    assert "scan [time, 1]" in told.words
    assert "predict [rows, time, 1]" in told.words


def test_90_images_in_clips_of_3_are_one_batch_and_90_clips_are_three(files: Path, explain: Explain) -> None:
    told = explain(files / "clips.keras", "--rows", 90, "--batch-size", 30)
    assert "90 pictures (30 clips of 3) at batch size 30: 1 batch of [30, 3, 32, 32, 3]." in told.words
    assert "A row (a sample) is a clip of 3 pictures, (3, 32, 32, 3)." in told.words
    assert "rows of 3 pictures [90, 3, 32, 32, 3] 3 batches of [30, 3, 32, 32, 3]" in told.words
    assert "pictures, 3 to a row [30, 3, 32, 32, 3] 1 batch of [30, 3, 32, 32, 3]" in told.words
    assert "frames (TimeDistributed) takes every picture alone, and none waits for another: 30 × 3 = 90" in told.words
    assert "lstm: LSTM(16) [30, 8] × [8, 64] [30, 16] × [16, 64] 4 gates × 16" in told.words
    assert "shape=(3, 32, 32, 3)" in told.words
    assert "built for rows of exactly 3 time steps; exported, it takes any number" in told.words
    assert "Time steps follow one another, 3 in turn" in told.words
    assert "-d @request.json" in told.words  # 3072 numbers are not written out
    assert 'request.json: {"inputs": {"clip": "nested lists, [32, 32, 3]"}}' in told.words


def test_frames_without_a_recurrent_layer_are_clips_too(files: Path, explain: Explain) -> None:
    told = explain(files / "features.keras", "--rows", 91, "--batch-size", 40)
    assert "91 pictures (30 clips of 3, 1 left over) at batch size 40: 1 batch of [30, 3, 32, 32, 3]." in told.words
    assert "rows of 3 pictures [91, 3, 32, 32, 3] 2 batches of [40, 3, 32, 32, 3] and a last one of [11, " in told.words
    assert re.search(r"\(1\b.*\bleft\b.*\bover\)", told.words)
    assert "Nothing: each row begins afresh" in told.words
    assert ":predict" in told.words
    assert "sessions" not in told.words


def test_pictures_too_few_for_a_row_are_taken_for_rows(files: Path, explain: Explain) -> None:
    told = explain(files / "clips.keras", "--rows", 2, "--batch-size", 30)
    assert "2 rows at batch size 30: 1 batch of [2, 3, 32, 32, 3]." in told.words
    assert "rows of 3 pictures [2, 3, 32, 32, 3] 1 batch of [2, 3, 32, 32, 3]" in told.words
    assert "to a row" not in told.words


def test_a_model_of_clips_of_any_length_takes_90_pictures_for_clips_of_3_and_says_so(
    clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explain: Explain
) -> None:
    """The plain command, with the model where `sluice models build` puts it."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(clips_dir)
    monkeypatch.chdir(tmp_path)
    told = explain("clips", "--rows", 90, "--batch-size", 30)
    assert told.code == 0, told.error
    assert "[batch, time≥1, height=32, width=32, channel=3]" in told.words
    assert "90 pictures (30 clips of 3) at batch size 30: 1 batch of [30, 3, 32, 32, 3]." in told.words
    assert "takes rows of any length up to 24. 3 is assumed here" in told.words
    assert "rows of 3 pictures [90, 3, 32, 32, 3] 3 batches of [30, 3, 32, 32, 3]" in told.words
    assert "all 30 rows of a batch go in together" in told.words
    assert "predict [rows, time, 32, 32, 3]" in told.words
    assert "in groups of up to 3, 6, 12, 24 time steps" in told.words


def test_clips_of_another_length_are_asked_for(clips_dir: Path, explain: Explain) -> None:
    told = explain(clips_dir / "clips" / "1", "--rows", 90, "--batch-size", 30, "--time", 5)
    assert "90 pictures (18 clips of 5) at batch size 30: 1 batch of [18, 5, 32, 32, 3]." in told.words
    assert "all 18 rows of a batch" in told.words
    assert "assumed" not in told.words
    network = clips_dir / "clips" / "1" / "assets.extra" / "model.keras"
    told = explain(network, "--rows", 90, "--batch-size", 30, "--time", 3)
    assert "takes every picture alone, and none waits for another: 30 × 3 = 90" in told.words
    assert "lstm: LSTM(64) [30, 32] × [32, 256] [30, 64] × [64, 256]" in told.words
    assert "A row (a sample) is a whole sequence of pictures" in explain(network, "--rows", 90).words


def test_numbers_are_cut_to_windows_of_the_length_that_is_asked_for(files: Path, explain: Explain) -> None:
    told = explain(files / "forecaster.keras", "--rows", 1000, "--batch-size", 100, "--time", 10)
    assert "1000 rows at batch size 100: 10 batches of [100, 10, 1]." in told.words
    assert "numbers, 10 to a row [100, 10, 1] 1 batch of [100, 10, 1]" in told.words


@pytest.mark.parametrize(
    ("target", "time", "reason"),
    [
        ("clips.keras", 5, "expected 3, as every row has here; got 5"),
        ("pictures.keras", 5, "expected none, as rows have no time steps here; got 5"),
        ("served", 25, "expected 24 or less, which is the longest row here; got 25"),
    ],
)
def test_a_length_that_no_row_can_have_is_refused(
    files: Path, clips_dir: Path, target: str, time: int, reason: str, explain: Explain
) -> None:
    told = explain(clips_dir / "clips" / "1" if target == "served" else files / target, "--time", time)
    assert told.code == 2
    assert f"--time: {reason}" in told.reason
    assert told.text == ""


def test_the_last_batch_is_smaller_where_the_batch_size_does_not_divide(files: Path, explain: Explain) -> None:
    told = explain(files / "pictures.keras", "--rows", 90, "--batch-size", 40)
    assert "90 rows at batch size 40: 2 batches of [40, 8, 8, 1] and a last one of [10, 8, 8, 1]." in told.words


def test_fewer_rows_than_a_batch_are_one_batch(files: Path, explain: Explain) -> None:
    told = explain(files / "pictures.keras", "--rows", 1, "--batch-size", 40)
    assert "1 row at batch size 40: 1 batch of [1, 8, 8, 1]." in told.words
    assert "All 1 row of a batch" not in told.words


def test_without_a_batch_size_keras_takes_32(files: Path, explain: Explain) -> None:
    told = explain(files / "pictures.keras", "--rows", 1000)
    assert (
        "1000 rows at batch size 32 (Keras's default): 31 batches of [32, 8, 8, 1] and a last one of [8, " in told.words
    )


def test_without_numbers_the_rule_is_told(files: Path, explain: Explain) -> None:
    assert "N rows at batch size B are N / B batches of [B, time, 1]" in explain(files / "forecaster.keras").words
    told = explain(files / "forecaster.keras", "--batch-size", 7)
    assert "N / 7 batches of [7, time, 1]" in told.words
    assert "[7, 1] × [1, 16]" in told.words


def test_a_stateful_model_of_several_layers_says_what_it_was_built_for(files: Path, explain: Explain) -> None:
    told = explain(files / "stacked.keras", "--rows", 45)
    assert "45 rows at batch size 10 (not given: the model's own): 4 batches of [10, time, 2] and a last" in told.words
    assert "built for batches of exactly 10 rows; exported, it takes any number" in told.words
    assert "Keras itself refuses batches of other than 10 rows here." in told.words
    assert "gru: GRU(8) [10, 2] × [2, 24] [10, 8] × [8, 24] 3 gates × 8" in told.words
    assert "simple: SimpleRNN(5) [10, 8] × [8, 5] [10, 5] × [5, 5] 1 for each unit" in told.words
    assert "One session takes 52 bytes of state" in told.words  # 8 + 5 numbers of 4 bytes


def test_a_model_that_cannot_be_stepped_is_explained_by_its_rows_and_says_why(files: Path, explain: Explain) -> None:
    told = explain(files / "both_ways.keras", "--rows", 40, "--batch-size", 20)
    assert told.code == 0
    assert "2 batches of [20, 12, 2]" in told.words
    assert "[20, 2] × [2, 9]" in told.words
    assert "Nothing from one call to the next" in told.words
    assert (
        "No sessions: layer 'both' (Bidirectional) cannot be run one time step at a time: it also reads" in told.words
    )
    assert "curl -s http://127.0.0.1:8080/v1/models/both_ways:predict" in told.words


def test_it_fits_80_columns_except_for_commands_and_has_no_colours(files: Path, explain: Explain) -> None:
    for name in ("forecaster", "clips", "stacked", "both_ways", "pictures"):
        text = explain(files / f"{name}.keras", "--rows", 90, "--batch-size", 30).text
        assert "\x1b" not in text
        lines = [line for line in text.splitlines()[1:] if not line.startswith("    sluice export")]
        assert not [line for line in lines if len(line) > 80 and "curl" not in line]
        assert not [line for line in lines if line != line.rstrip()]
        assert len(lines) <= 65


def test_an_exported_folder_is_explained_by_its_contract_alone(temperature_dir: Path, explain: Explain) -> None:
    told = explain(temperature_dir / "temperature" / "1", "--rows", 90, "--batch-size", 40)
    assert told.code == 0
    assert "2 batches of [40, time, 1] and a last one of [10, time, 1]." in told.words
    assert "each is one month" in told.words
    assert "lstm: LSTM(32) [40, n] × [n, 128] [40, 32] × [32, 128] 4 gates × 32" in told.words
    assert "One session takes 256 bytes of state" in told.words
    assert "assets.extra/model.keras` knows them." in told.words
    assert '{"inputs": {"temperature": [23.11]}}' in told.words


def test_a_contract_is_explained_without_tensorflow(temperature_dir: Path) -> None:
    code = (
        "import sys; from sluice.cli.main import app; "
        f"app(['explain', {str(temperature_dir / 'temperature' / '1')!r}], standalone_mode=False); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_version_without_a_contract_is_explained_as_rows(tmp_path: Path, explain: Explain) -> None:
    import tensorflow as tf

    class Doubling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def double(self, x: Any) -> Any:
            return {"y": 2 * x}

    module = Doubling()
    tf.saved_model.save(module, str(tmp_path / "doubling" / "2"), signatures={"serving_default": module.double})
    told = explain(tmp_path / "doubling" / "2", "--rows", 7, "--batch-size", 4)
    assert told.text.startswith("doubling (version 2")
    assert "1 batch of [4, 4] and a last one of [3, 4]." in told.words
    assert "predict [rows, 4] rows" in told.words
    assert "/v1/models/doubling:predict \\ -d '{\"instances\": [[0.0, 0.0, 0.0, 0.0]]}'" in told.words


def test_a_served_model_is_explained_by_its_contract(gateway: str, explain: Explain) -> None:
    told = explain("wind", "--url", f"{gateway}/", "--rows", 30, "--batch-size", 30)
    assert told.code == 0
    assert told.text.startswith(f"wind (served at {gateway})\nWind at the next hour\n")
    assert "1 batch of [30, time, 2]." in told.words
    assert "lstm: LSTM(6) [30, n] × [n, 24] [30, 6] × [6, 24] 4 gates × 6" in told.words
    assert "[30, n] × [n, k·5] [30, 5] × [5, k·5] k = 3 or 1" in told.words
    assert "k is 3 for a GRU, 1 for a SimpleRNN" in told.words
    assert "memory (states slots): computed from that step's input and the state before it" in told.words
    assert "memory/slots state of memory [7, 3] float32 0.5 84" in told.words  # 7 * 3 * 4
    assert "One session takes 142 bytes of state" in told.words  # 24 + 24 + 5 * 2 + 84
    assert f'curl -s {gateway}/v1/sessions/mine:step \\ -d \'{{"inputs": {{"wind": [3.5, -1.0]}}}}\'' in told.words


def test_an_encoder_decoder_is_explained_by_what_it_encodes(gateway: str, explain: Explain) -> None:
    told = explain("dates", "--url", gateway, "--rows", 64)
    assert told.code == 0
    assert "text takes int32 [batch, time≥1]." in told.words
    assert "generate [rows, time] rows; the answer to each is written token by token" in told.words
    assert f'curl -s {gateway}/v1/models/dates:generate \\ -d \'{{"instances": ["1 May"]}}\'' in told.words


def test_a_served_model_without_a_contract_is_explained_as_rows(gateway: str, explain: Explain) -> None:
    told = explain("plain", "--url", gateway)
    assert "x takes float32 [batch, axis 1=4]." in told.words
    assert f"curl -s {gateway}/v1/models/plain:predict" in told.words


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("nothing", 1, "404: Model 'nothing' is not served. GET /v1/models lists"),
        ("down", 3, "503: The model server does not answer."),
        ("odd", 3, "did not answer as a gateway does: expected a JSON object"),
        ("old", 1, "contract.schema: expected 1, got 0"),
        ("empty", 1, "expected a model with a signature that takes tensors"),
        ("strange", 3, "did not answer as a gateway does: expected the fields that a gateway writes"),
        ("broken", 1, "500: <html>"),
    ],
)
def test_what_a_gateway_answers_wrongly_is_told(
    gateway: str, explain: Explain, name: str, code: int, reason: str
) -> None:
    told = explain(name, "--url", gateway)
    assert told.code == code
    assert reason in told.reason
    assert told.text == ""


def test_a_gateway_that_is_not_there_cannot_be_reached(explain: Explain) -> None:
    told = explain("temperature", "--url", "http://127.0.0.1:1")
    assert told.code == 3
    assert "http://127.0.0.1:1: expected a gateway there. " in told.reason
    assert "sluice serve" in told.reason


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["missing.keras"], 1, "missing.keras: expected a Keras model file, .keras or .h5; there is no such file in /"),
        (["missing.h5"], 1, "there is no such file in "),
        (["text.keras"], 1, "as `model.save` writes it; this is none, or was cut off"),
        (["zip.keras"], 1, "expected a Keras model file, as `model.save` writes it; "),
        (["text.txt"], 1, "its name ends in '.txt'. Load the model in Python, and save it as NAME.keras"),
        (["missing.py"], 1, "there is no such file in "),
        (["unbuilt.keras"], 1, "build it with keras.Input"),
        (["no/such/1"], 1, "there is no such file or folder"),
        (["models/wind"], 1, "expected an exported version, DIR/NAME/VERSION"),
        (["models/wind/1"], 1, "saved_model.pb: expected a SavedModel"),
        (["models/wind/2"], 1, "contract.json: expected JSON"),
        (["models/empty"], 1, "export a model with `sluice export FILE.keras"),
        (["wind", "--url", "somewhere"], 2, "--url: expected the gateway's HTTP port, http://HOST:PORT, got 'some"),
        (["text.keras", "--rows", "0"], 2, "--rows: expected a number from 1, got '0'"),
        (["text.keras", "--batch-size", "-5"], 2, "--batch-size: expected a number from 1, got '-5'"),
        (["text.keras", "--rows", "many"], 2, "--rows: expected a whole number, got 'many'"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_given_wrongly_is_told(
    arguments: list[str], code: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explain: Explain
) -> None:
    import keras

    monkeypatch.chdir(tmp_path)
    for name in ("text.keras", "text.txt"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "zip.keras").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([keras.layers.Dense(1)]).save("unbuilt.keras")
    for version in ("1", "2"):
        (tmp_path / "models" / "wind" / version / "assets.extra").mkdir(parents=True)
        (tmp_path / "models" / "wind" / version / "saved_model.pb").write_bytes(b"no protobuf")
    (tmp_path / "models" / "wind" / "2" / "assets.extra" / "contract.json").write_text("{")
    (tmp_path / "models" / "empty").mkdir()
    told = explain(*arguments)
    assert told.code == code, told.error
    assert reason in told.reason
    assert "Traceback" not in told.error
    assert told.text == ""


def test_a_folder_that_is_no_version_names_one(temperature_dir: Path, explain: Explain) -> None:
    told = explain(temperature_dir / "temperature")
    assert told.code == 1
    assert f"try {(temperature_dir / 'temperature').resolve() / '1'}" in told.reason


def test_layers_of_ones_own_are_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explain: Explain
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("mine.py").write_text(
        "import keras\n\n\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    import_classes(["mine"])
    twice = sys.modules["mine"].Twice
    keras.Sequential([keras.Input((4,)), twice()]).save("twice.keras")

    def fresh(*imports: str) -> Told:
        """What is said where nobody has imported the layer yet."""
        keras.saving.get_custom_objects().pop("mine>Twice", None)
        for name in ("mine", "imported_mine"):
            sys.modules.pop(name, None)
        return explain("twice.keras", "--rows", 3, *imports)

    unknown = fresh()
    assert unknown.code == 1
    assert "--import" in unknown.error
    for given in ("mine.py", "mine"):
        known = fresh("--import", given)
        assert known.code == 0, known.error
        assert "1 batch of [3, 4]." in known.text
    missing = fresh("--import", "other.py")
    assert missing.code == 1
    assert "--import" in missing.error
    assert "other.py" in missing.error


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explain: Explain) -> None:
    monkeypatch.chdir(tmp_path)
    shown = list(blocks("docs/explain.md"))
    for block in shown:
        if block.language == "python":
            exec(block.text, {})
    pairs = [(asked, told) for asked, told in pairwise(shown) if told.language == "text"]
    assert len(pairs) == 2
    for asked, told in pairs:
        _, command, *arguments = shlex.split(asked.text)
        assert command == "explain"
        assert explain(*arguments).text == told.text


def test_every_option_is_on_the_page() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    options = {"--rows", "--batch-size", "--time", "--url", "--import"}
    assert set(re.findall(r"^\| `(--[a-z-]+) ", text, re.MULTILINE)) == options
