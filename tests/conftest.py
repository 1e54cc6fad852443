"""Fixtures that several folders of tests share: the trained example models."""

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice_models import train

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "var" / "models"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By name of an example, a models directory with this one alone; trained if `var/models` does not have it yet."""

    def models_dir(name: str) -> Path:
        MODELS.mkdir(parents=True, exist_ok=True)
        with (MODELS.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not train.is_built([name], MODELS):
                command = [sys.executable, "-m", "sluice.cli", "models", "build", name, "--out", MODELS]
                subprocess.run(command, cwd=ROOT, check=True)
        folder = tmp_path_factory.mktemp(name)
        for built in MODELS.glob(f"{name}*"):
            (folder / built.name).symlink_to(built)
        return folder

    return models_dir


@pytest.fixture(scope="session")
def temperature_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `temperature` model."""
    return trained("temperature")


@pytest.fixture(scope="session")
def dates_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `dates` model."""
    return trained("dates")


@pytest.fixture(scope="session")
def clips_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `clips` model."""
    return trained("clips")


@pytest.fixture(scope="session")
def language_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `language` model."""
    return trained("language")


@pytest.fixture(scope="session")
def digits_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the four trained networks of `digits`."""
    return trained("digits")


@pytest.fixture(scope="session")
def glyphs_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the four trained networks of `glyphs`."""
    return trained("glyphs")
