"""No event loop but those of the tests that ask for one."""

import asyncio
import contextlib
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_loop() -> None:
    """Otherwise looptime makes one before the first test that has none, here or before, and nobody closes it."""
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # none, and none to be made: a test was here
        warnings.simplefilter("ignore", DeprecationWarning)  # that there was none
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)
