"""The wheel, and empty environments that it is installed into with the versions that are locked."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

UV = Path(sys.executable).parent / "uv"


@dataclass(frozen=True)
class Environment:
    """A virtual environment; what runs in it sees nothing of this repository."""

    folder: Path

    def command(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, name: str, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [self.command(name), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=outside(), capture_output=True, text=True, timeout=timeout_s
        )


def outside() -> dict[str, str]:
    """The environment's variables without ours and Python's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PYTHON"))}


def uv(*arguments: object) -> None:
    done = subprocess.run([UV, *map(str, arguments)], cwd=ROOT, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--no-build-isolation", "--offline", "--python", sys.executable, "--out-dir", folder)
    [file] = folder.glob("*.whl")
    return file


def installed(wheel: Path, folder: Path, extras: str, locked: str) -> Environment:
    uv("venv", "--python", sys.executable, folder)
    wanted = f"sluice-serving{extras} @ {wheel.as_uri()}"
    uv("pip", "install", "--python", folder / "bin" / "python", "--constraint", ROOT / "requirements" / locked, wanted)
    return Environment(folder)


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, tmp_path_factory.mktemp("bare") / "venv", "", "gateway.txt")


@pytest.fixture(scope="session")
def with_gateway(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, tmp_path_factory.mktemp("gateway") / "venv", "[gateway]", "gateway.txt")
