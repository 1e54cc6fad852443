"""A gateway in this process, in front of a puppet model server, which evaluations meet on the wire."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluator.evaluations import Evaluations, made_up
from tests.gateway.conftest import here, logs, puppet
from tests.gateway.here import Here

__all__ = ["here", "logs", "puppet", "run"]


@pytest.fixture
def run(here: Here, tmp_path: Path) -> Evaluations:
    np.savez(tmp_path / "rows.npz", **made_up())
    return Evaluations(f"http://127.0.0.1:{here.port}", tmp_path / "rows.npz")
