"""Fixtures that several folders of tests share."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def temperature_dir() -> Path:
    """A models directory with the trained `temperature` model."""
    return _trained("temperature")


@pytest.fixture(scope="session")
def dates_dir() -> Path:
    """A models directory with the trained `dates` model."""
    return _trained("dates")


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """A models directory with the trained `clips` model."""
    return _trained("clips")


@pytest.fixture(scope="session")
def language_dir() -> Path:
    """A models directory with the trained `language` model."""
    return _trained("language")


@pytest.fixture(scope="session")
def digits_dir() -> Path:
    """A models directory with the four trained networks of `digits`."""
    return _trained("digits", "openset", "glyphs")


@pytest.fixture(scope="session")
def glyphs_dir() -> Path:
    """A models directory with the four trained networks of `glyphs`."""
    return _trained("glyphs", "openset")


def _trained(name: str, *folders: str) -> Path:
    """A models directory with this example model alone; built once, and again when its sources are newer.

    Its sources are those of its own folder, of the exporter, and of these folders of `models`.
    """
    folder = ROOT / "var" / f"test-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_stale((name, "export", *folders), folder / name / "1" / "saved_model.pb"):
            for old in folder.iterdir():
                shutil.rmtree(old)
            _build(name, folder)
    return folder


def _is_stale(folders: Iterable[str], built: Path) -> bool:
    sources = [source for each in folders for source in (ROOT / "models" / "sluice_models" / each).glob("*.py")]
    return not built.exists() or built.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def _build(name: str, folder: Path) -> None:
    code = "import sys; from sluice_models import train; train.build([sys.argv[1]], sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, name, folder], cwd=ROOT, check=True)
