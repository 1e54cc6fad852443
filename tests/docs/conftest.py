"""One gateway for all pages, on a copy of the trained example model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.serving import Gateway, serving


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, temperature_dir: Path) -> Path:
    """A folder like the one in which a reader pastes: with `var/models/temperature/1`."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(temperature_dir / "temperature", folder / "var" / "models" / "temperature")
    return folder


@pytest.fixture(scope="session")
def gateway(workplace: Path) -> Iterator[Gateway]:
    with serving(workplace / "var" / "models", workplace) as gateway:
        yield gateway
