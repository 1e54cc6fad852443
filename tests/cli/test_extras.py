"""Every command says what it needs; what is installed in fact is tried in tests/wheel."""

import typer.main

from sluice.cli import extras
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
