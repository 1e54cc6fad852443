"""No event loop but those of the tests that ask for one."""

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_loop() -> None:
    """Otherwise looptime makes one before the first test that has none, and nobody closes it."""
    asyncio.set_event_loop(None)
