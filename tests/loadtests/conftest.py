"""One gateway for all tests that load one, and what Keras answers to the load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtests.processes import python, run
from loadtests.serving import MODELS, serving
from sluice.cli.embedded import Embedded
from tests.conftest import ROOT

LONGEST_S = 300.0  # that Keras may take where it has answered nothing yet


@pytest.fixture(scope="session")
def models(trained: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained models of the load, and no others."""
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        (folder / name).symlink_to((trained(name) / name).resolve())
    return folder


@pytest.fixture(scope="session")
def traffic(models: Path) -> Path:
    """The folder of the traffic, which is kept for the next run of the tests."""
    folder = ROOT / "var" / "loadtest" / "traffic"
    run(python("loadtests.traffic", "--models", models, "--out", folder), LONGEST_S)
    return folder


@pytest.fixture(scope="session")
def gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """It serves the models, calibrated."""
    with serving(models, tmp_path_factory.mktemp("gateway")) as own:
        yield own
