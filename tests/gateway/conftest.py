"""A puppet model server and gateways in front of it, each test with its own.

All these tests share one event loop: gRPC's asyncio reads the events of all loops of a process from one queue, and
stumbles over those that belong to a loop which was closed.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.gateway.here import Here, listening, running
from tests.gateway.puppet import Puppet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Logs are kept, not printed."""
    with capture_logs() as captured:
        yield captured


@pytest_asyncio.fixture(loop_scope="session")
async def puppet(tmp_path) -> AsyncIterator[Puppet]:
    puppet = Puppet(tmp_path)
    await puppet.start()
    yield puppet
    await puppet.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def here(puppet) -> AsyncIterator[Here]:
    async with running(puppet) as here:
        yield here


@pytest_asyncio.fixture(loop_scope="session")
async def online(puppet) -> AsyncIterator[Here]:
    async with listening(puppet) as here:
        yield here
