"""One gateway for all pages, on copies of the trained example models."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.serving import Gateway, serving


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, temperature_dir: Path, dates_dir: Path) -> Path:
    """A folder like the one in which a reader pastes, after `make serve`."""
    folder = tmp_path_factory.mktemp("docs")
    for trained in (temperature_dir / "temperature", dates_dir / "dates"):
        shutil.copytree(trained, folder / "var" / "models" / trained.name)
    return folder


@pytest.fixture(scope="session")
def gateway(workplace: Path) -> Iterator[Gateway]:
    with serving(workplace / "var" / "models", workplace) as gateway:
        yield gateway
