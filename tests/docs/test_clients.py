"""The Python programs on the page about clients print what it shows, except for the digits of floats."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sluice_models.digits import data
from tests.docs.pages import Block, blocks
from tests.docs.programs import file_name, here, prints
from tests.end_to_end.serving import Gateway, environment, serving, sluice

pytestmark = pytest.mark.timeout(1200)  # the first test that needs a model trains it

PAGE = "docs/clients.md"
PROGRAMS = [
    pytest.param(block, following, id=file_name(block))
    for block, following in pairwise([*blocks(PAGE), Block("", "", "")])
    if block.language == "python"
]


@pytest.fixture(scope="module")
def calibrated(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the model `digits`, calibrated as the page says."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "models").mkdir()
    shutil.copytree(digits_dir / "digits", folder / "models" / "digits")
    (folder / "calibrations").mkdir()
    every = data.load()
    held_out = folder / "held_out.npz"
    labels = np.array(every.classes)[every.calibration.labels]
    np.savez(held_out, picture=every.calibration.pictures, label=labels)
    with serving(folder / "models", folder, "--calibrations", str(folder / "calibrations")) as gateway:
        flags = ("--known", str(held_out), "--method", "knn", "--calibrations", str(folder / "calibrations"))
        ran = sluice("calibrate", "digits", *flags, "--url", gateway.url)
        assert ran.returncode == 0, ran.stderr
        assert gateway.call("POST", "/v1/calibrations:reload").status == 200
        yield gateway


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


@pytest.mark.parametrize(
    ("shown", "printed"), [("1 [2.5]", "2 [2.5]"), ("1 [2.5]", "1 [2]"), ("one\n", "one\ntwo\n"), ("1.5.", "1.5")]
)
def test_a_print_that_differs_is_noticed(shown: str, printed: str) -> None:
    assert prints(shown, shown)
    assert not prints(shown, printed)
