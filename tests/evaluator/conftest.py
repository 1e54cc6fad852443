"""An evaluator in the test's own loop, with an engine that the test tells what to do."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.evaluator.puppet import Here, running


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Logs are kept, not printed."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def here(tmp_path) -> AsyncIterator[Here]:
    async with running(tmp_path) as here:
        yield here
