"""The back-end client when its connection is replaced under running calls."""

import asyncio
import socket

import numpy as np
import pytest

from sluice.gateway.upstream.client import Backend
from sluice.policy.errors import BackendUnavailable
from tests.gateway.puppet import Puppet

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


async def test_model_servers_behind_one_name_take_turns(tmp_path):
    puppets = [Puppet(tmp_path), Puppet(tmp_path)]
    asked = []
    for puppet in puppets:

        async def count(_, puppet=puppet):
            asked.append(puppet)

        with socket.create_server(("127.0.0.1", 0)) as free:
            puppet.address, puppet.before = f"127.0.0.1:{free.getsockname()[1]}", count
        await puppet.start()
    backend = Backend("ipv4:" + ",".join(puppet.address for puppet in puppets))
    try:
        async with asyncio.timeout(20):
            while len({*asked}) < 2:  # one is connected to before the other
                await backend.predict("plain", 1, "serving_default", ROWS, (), 20)
        asked.clear()
        for _ in range(6):
            await backend.predict("plain", 1, "serving_default", ROWS, (), 20)
        assert [asked.count(puppet) for puppet in puppets] == [3, 3]
    finally:
        await backend.close()
        for puppet in puppets:
            await puppet.stop()
