"""What the load tests' tests share: one gateway with all models of the loads, and what Keras answers to the loads."""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.processes import python, run
from loadtests.serving import serving
from sluice.cli.embedded import Embedded
from tests.conftest import MODELS

TRAFFIC = MODELS.parent / "loadtest" / "traffic"  # kept from run to run, as the trained models are


@pytest.fixture(scope="session")
def gateway(temperature_dir, dates_dir, digits_dir, tmp_path_factory) -> Iterator[Embedded]:
    """Its models are trained and calibrated."""
    with serving(MODELS, tmp_path_factory.mktemp("gateway")) as served:
        yield served


@pytest.fixture(scope="session")
def traffic(temperature_dir, dates_dir, digits_dir) -> Path:
    """The folder of what is sent and what is right."""
    with (MODELS.parent / "traffic.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(python("loadtests.traffic", "--models", MODELS, "--out", TRAFFIC), limit_s=300)
    return TRAFFIC
