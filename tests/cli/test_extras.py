"""Every command says what it needs; what is installed in fact is tried in tests/wheel."""

import gc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import typer.main

from sluice.cli import dispatch, extras, keras_import
from sluice.cli.errors import CommandError
from sluice.cli.main import app
from tests.cli.conftest import told
from tests.end_to_end.serving import sluice


def test_every_command_names_its_extras() -> None:
    assert set(extras.NEEDS) == set(typer.main.get_command(app).commands)


def test_an_unknown_command_is_wrong_usage() -> None:
    unknown = told("serf")
    assert (unknown.code, "No such command 'serf'" in unknown.reason) == (2, True)


def test_settings_that_cannot_be_used_are_told_in_one_line() -> None:
    wrong = sluice("serve")
    expected = "sluice: expected --models DIR, --backend HOST:PORT, or both\n"
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", expected)


def test_a_setting_of_another_form_is_told_with_what_it_takes() -> None:
    said = told("serve", "--models", ".", "--http", "18110")
    assert (said.code, said.error) == (2, "sluice: --http: expected HOST:PORT, such as 127.0.0.1:8080, got '18110'\n")


_OR_GATEWAY = ", or name a gateway that runs: --url URL"
_OR_BACKEND = ", or name a model server that runs: --backend HOST:PORT"
# By command line, how the sentence names the command, the extras and what else would do.
WITH_TENSORFLOW = {
    "serve --models .": ("serve --models", "model-server", _OR_BACKEND),
    "model-server --port 0": ("model-server", "model-server", ""),
    "export m.keras --out m/1": ("export", "export", ""),
    "explain m.keras": ("explain FILE.keras", "export", ""),
    "explain plain/1": ("explain DIR/NAME/VERSION", "export", ""),
    "models build temperature --out .": ("models build", "export", ""),
    "calibrate plain --known m.npz --models .": (
        "calibrate",
        "model-server",
        ", or name a gateway that runs: --url URL",
    ),
    "demo": ("demo", "export and model-server", ""),
}


@pytest.mark.parametrize("command", WITH_TENSORFLOW)
def test_without_tensorflow_one_line_names_the_extra(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as where there is none
    monkeypatch.setattr(gc, "disable", lambda: None)  # `serve` does, in a process of its own
    monkeypatch.chdir(tmp_path)
    with ZipFile("m.keras", "w"):
        pass
    np.savez("m.npz", x=np.zeros((2, 3)), label=np.arange(2))
    (tmp_path / "plain" / "1").mkdir(parents=True)
    (tmp_path / "plain" / "1" / "saved_model.pb").touch()
    said = told(*command.split())
    asked, extra, otherwise = WITH_TENSORFLOW[command]
    named = f"the extra{'s' if ' and ' in extra else ''} {extra}"
    install = f"pip install 'sluice-serving[{extra.replace(' and ', ',')}]'"
    assert (said.code, said.text, said.error) == (
        2,
        "",
        f'sluice: "sluice {asked}" needs {named}: {install}{otherwise}\n',
    )


def test_a_keras_that_cannot_be_imported_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_import, "need", lambda *_: None)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(CommandError, match=r'"sluice export" needs Keras with TensorFlow, .*: import of keras') as told:
        keras_import.import_keras("export")
    assert told.value.code == 2


@pytest.mark.parametrize("command", ["export nothere.keras --out m/1", "explain nothere.h5", "explain icu.py"])
def test_of_a_file_that_is_not_there_it_is_told_without_keras(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (dispatch, keras_import):
        monkeypatch.setattr(module, "need", lambda *_: None)
    monkeypatch.setitem(sys.modules, "keras", None)
    said = told(*command.split())
    assert (said.code, "there is no such file in " in said.reason) == (1, True)


def test_a_folder_that_tensorflow_left_behind_is_not_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(extras.PROOF, "export", ["keras", "left_behind"])  # type: ignore[arg-type]
    assert not extras.installed("export")


def test_the_version_is_told() -> None:
    asked = told("--version")
    assert (asked.code, asked.text) == (0, f"sluice {version(extras.DISTRIBUTION)}\n")
    assert "sluice --version" in told("--help").text


@pytest.mark.parametrize("command", ["", "serve ", "export ", "calibrate ", "models build "])
def test_help_has_a_short_form(command: str) -> None:
    long, short = (told(*f"{command}{flag}".split()) for flag in ("--help", "-h"))
    assert (short.code, short.error) == (0, "")
    assert short.text == long.text
    assert f"Usage: sluice {command}" in short.text


def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "installed", pressed)
    assert told("doctor") == (130, "", "")


def test_nothing_is_imported_before_ctrl_c_is_minded() -> None:
    code = "import sys; before = {*sys.modules}; import sluice.cli.__main__; print(*sorted({*sys.modules} - before))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert imported == "sluice sluice.cli sluice.cli.__main__\n"


def test_a_command_that_has_no_standard_error_ends_with_its_code(tmp_path: Path) -> None:
    command = '"$0" -m sluice.cli serve --models nowhere 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path, check=False).returncode == 2
