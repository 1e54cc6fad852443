"""Fixtures that several folders of tests share."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def temperature_dir() -> Path:
    """A models directory with the trained `temperature` model; built once, and again when its sources are newer."""
    folder = ROOT / "var" / "test-models"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "test-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_stale(folder / "temperature" / "1" / "saved_model.pb"):
            shutil.rmtree(folder / "temperature", ignore_errors=True)
            _build(folder)
    return folder


def _is_stale(built: Path) -> bool:
    sources = (ROOT / "models").rglob("*.py")
    return not built.exists() or built.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def _build(folder: Path) -> None:
    code = "import sys; from models import train; train.build(['temperature'], sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True)
