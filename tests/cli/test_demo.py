"""The demo, where its gateway does not answer."""

import asyncio

import pytest

from sluice.cli.demo import sequences
from sluice.client import AsyncClient, NoAnswer


def test_series_that_are_not_answered_end_the_demo_with_the_reason() -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:9", attempts=1) as client:
            await sequences.ask(client, [])

    with pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:9 did not answer"):
        asyncio.run(ask())
