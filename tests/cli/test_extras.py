"""Every command says what it needs; what is installed in fact is tried in tests/wheel."""

from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from sluice.cli import extras
from sluice.cli.main import app
from tests.cli.conftest import told
from tests.end_to_end.serving import finding, sluice


def test_every_command_names_its_extras() -> None:
    assert set(extras.NEEDS) == set(typer.main.get_command(app).commands)


def test_an_unknown_command_is_wrong_usage() -> None:
    unknown = told("serf")
    assert (unknown.code, "No such command 'serf'" in unknown.reason) == (2, True)


def test_settings_that_cannot_be_used_are_told_in_one_line() -> None:
    wrong = sluice("serve")
    expected = "sluice: expected --models DIR, --backend HOST:PORT, or both\n"
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", expected)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["serve", "--models", "."],
            (
                "\"sluice serve --models\" needs the extra model-server: pip install 'sluice-serving[model-server]', "
                "or name a model server that runs: --backend HOST:PORT"
            ),
        ),
        (
            ["model-server", "--models=."],
            "\"sluice model-server\" needs the extra model-server: pip install 'sluice-serving[model-server]'",
        ),
        (
            ["export", "a.keras", "--out", "a/1"],
            "\"sluice export\" needs the extra export: pip install 'sluice-serving[export]'",
        ),
    ],
    ids=lambda each: each[0],
)
def test_without_tensorflow_a_command_says_in_one_sentence_what_to_install(
    tmp_path: Path, command: list[str], told: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n")
    done = sluice(*command, env=finding(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"sluice: {told}\n")


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


def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.cli.__main__.installed", pressed)
    assert told("doctor") == (130, "", "")
