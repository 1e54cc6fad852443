"""The Python programs on the page about clients print what it shows, except for the digits of floats."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks
from tests.docs.programs import file_name, here, prints
from tests.end_to_end.serving import Gateway, environment

PAGE = "docs/clients.md"
PROGRAMS = [
    pytest.param(block, following, id=file_name(block))
    for block, following in pairwise([*blocks(PAGE), Block("", "", "")])
    if block.language == "python"
]


@pytest.mark.parametrize(("program", "shown"), PROGRAMS)
def test_a_program_prints_what_the_page_shows(program: Block, shown: Block, gateway: Gateway, workplace: Path) -> None:
    assert shown.language == "text"
    file = workplace / file_name(program)
    file.write_text(here(program.text, gateway), encoding="utf-8")
    ran = subprocess.run([sys.executable, file], cwd=workplace, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert prints(shown.text, ran.stdout), f"{ran.stdout}\nis not\n{shown.text}"


@pytest.mark.parametrize(
    ("shown", "printed"), [("1 [2.5]", "2 [2.5]"), ("1 [2.5]", "1 [2]"), ("one\n", "one\ntwo\n"), ("1.5.", "1.5")]
)
def test_a_print_that_differs_is_noticed(shown: str, printed: str) -> None:
    assert prints(shown, shown)
    assert not prints(shown, printed)
