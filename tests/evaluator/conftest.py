"""A gateway in this process, in front of a puppet model server, which evaluations meet on the wire."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

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
