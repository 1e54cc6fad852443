"""An evaluator in the test's own loop, whose engine does what the test tells."""

from collections.abc import AsyncIterator

import pytest

from tests.evaluator.puppet import Here, running


@pytest.fixture
async def here(tmp_path) -> AsyncIterator[Here]:
    async with running(tmp_path) as here:
        yield here
