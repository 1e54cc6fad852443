"""The gateways that the pages ask, on copies of the trained example models."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.serving import Gateway, serving


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, temperature_dir: Path, dates_dir: Path) -> Path:
    """A folder like the one in which a reader pastes, after `make serve`."""
    return _workplace(tmp_path_factory, temperature_dir / "temperature", dates_dir / "dates")


@pytest.fixture(scope="session")
def gateway(workplace: Path) -> Iterator[Gateway]:
    """What `make serve` serves."""
    with serving(workplace / "var" / "models", workplace) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def recognition_workplace(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> Path:
    """The same folder after `sluice models build digits`."""
    return _workplace(tmp_path_factory, *(digits_dir / name for name in ("digits", "digits_detector")))


@pytest.fixture(scope="session")
def recognition_gateway(recognition_workplace: Path) -> Iterator[Gateway]:
    """The model `digits`, in a gateway that looks for calibrations where `sluice calibrate` writes them."""
    calibrations = recognition_workplace / "var" / "calibrations"
    calibrations.mkdir()
    flags = ("--calibrations", str(calibrations))
    with serving(recognition_workplace / "var" / "models", recognition_workplace, *flags) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def questions_workplace(
    tmp_path_factory: pytest.TempPathFactory, temperature_dir: Path, dates_dir: Path, digits_dir: Path, clips_dir: Path
) -> Path:
    """The same folder after `sluice models build`, as far as the questions go."""
    names = (temperature_dir / "temperature", dates_dir / "dates", digits_dir / "digits", clips_dir / "clips")
    return _workplace(tmp_path_factory, *names)


@pytest.fixture(scope="session")
def questions_gateway(questions_workplace: Path) -> Iterator[Gateway]:
    with serving(questions_workplace / "var" / "models", questions_workplace) as gateway:
        yield gateway


def _workplace(tmp_path_factory: pytest.TempPathFactory, *models: Path) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for model in models:
        shutil.copytree(model, folder / "var" / "models" / model.name)
    return folder
