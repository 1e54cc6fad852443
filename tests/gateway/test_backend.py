"""The back-end client when its connection is replaced under running calls."""

import asyncio

import numpy as np
import pytest

from sluice.gateway.upstream.client import Backend
from sluice.policy.errors import BackendUnavailable

ROWS = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
async def held(puppet):
    """A back end with one call that runs until the gate opens."""
    backend, gate = Backend(puppet.address), asyncio.Event()

    async def wait(_):
        await gate.wait()

    puppet.before = wait
    call = asyncio.create_task(backend.predict("plain", 1, "serving_default", ROWS, (), 20))
    await puppet.until_running(1)
    yield backend, call, gate
    gate.set()
    await backend.close()


async def test_a_call_that_runs_is_answered_though_the_connection_is_replaced(held):
    backend, call, gate = held
    await backend.reconnect()
    assert [each.version for each in await backend.versions("plain", 5)] == [1]
    gate.set()
    assert (await call)["y"].tolist() == [[2, 2]]


async def test_a_call_whose_channel_is_closed_fails_as_unavailable_and_is_not_cancelled(held):
    backend, call, _ = held
    await backend.close()
    with pytest.raises(BackendUnavailable):
        await call


async def test_a_call_that_its_maker_cancels_is_cancelled(held):
    _, call, _ = held
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
