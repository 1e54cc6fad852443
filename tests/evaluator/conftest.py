"""A gateway in this process, in front of a puppet model server, which evaluations meet on the wire."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.evaluator.evaluations import Evaluations, made_up
from tests.gateway.here import Here, running
from tests.gateway.puppet import Puppet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Logs are kept, not printed."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def puppet(tmp_path) -> AsyncIterator[Puppet]:
    puppet = Puppet(tmp_path)
    await puppet.start()
    yield puppet
    await puppet.stop()


@pytest.fixture
async def here(puppet) -> AsyncIterator[Here]:
    async with running(puppet) as here:
        yield here


@pytest.fixture
def run(here: Here, tmp_path: Path) -> Evaluations:
    np.savez(tmp_path / "rows.npz", **made_up())
    return Evaluations(f"http://127.0.0.1:{here.port}", tmp_path / "rows.npz")
