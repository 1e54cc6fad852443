"""The Python programs on the page about clients print what it shows."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sluice_models.digits import data
from tests.docs.numbers import prints
from tests.docs.pages import Block, blocks
from tests.docs.programs import file_name, here
from tests.end_to_end.serving import Gateway, environment, sluice

pytestmark = pytest.mark.timeout(1200)  # the first test that needs a model trains it

PAGE = "docs/clients.md"
PROGRAMS = [
    pytest.param(block, following, id=file_name(block))
    for block, following in pairwise([*blocks(PAGE), Block("", "", "")])
    if block.language == "python"
]


@pytest.fixture(scope="module")
def calibrated(recognition_gateway: Gateway, recognition_workplace: Path) -> Gateway:
    """The gateway with the model `digits`, calibrated as the page says."""
    every = data.load()
    held_out = recognition_workplace / "held_out.npz"
    labels = np.array(every.classes)[every.calibration.labels]
    np.savez(held_out, picture=every.calibration.pictures, label=labels)
    flags = ("--known", str(held_out), "--method", "knn", "--url", recognition_gateway.url)
    ran = sluice("calibrate", "digits", *flags, cwd=recognition_workplace)
    assert ran.returncode == 0, ran.stderr
    assert recognition_gateway.call("POST", "/v1/calibrations:reload").status == 200
    return recognition_gateway


@pytest.mark.parametrize(("program", "shown"), PROGRAMS)
def test_a_program_prints_what_the_page_shows(
    program: Block, shown: Block, request: pytest.FixtureRequest, workplace: Path
) -> None:
    gateway = request.getfixturevalue("calibrated" if file_name(program) == "digits.py" else "gateway")
    assert shown.language == "text"
    file = workplace / file_name(program)
    file.write_text(here(program.text, gateway), encoding="utf-8")
    ran = subprocess.run([sys.executable, file], cwd=workplace, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert prints(shown.text, ran.stdout), f"{ran.stdout}\nis not\n{shown.text}"
