"""Calls of an asynchronous client that is closed say so, over gRPC as httpx has it over HTTP."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sluice.client import AsyncClient
from sluice.client.session import AsyncSession
from sluice.client.values import Opened


async def test_a_call_whose_client_is_closed_says_so_and_one_that_is_given_up_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        client = AsyncClient(f"grpc://127.0.0.1:{silent.getsockname()[1]}", timeout_s=600)
        stream = client.stream("sum")

        def session() -> AsyncSession:
            opened = Opened("a", "sum", "1", 0)
            return AsyncSession(client._transport, client._patience, opened, numbered=True)

        async def generate() -> list[Any]:
            return [event async for event in client.generate_stream("sum", ["a"])]

        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.predict("sum", [1]),
            lambda: client.signatures("sum"),
            lambda: session().step({"x": [1, 2]}),
            lambda: stream.step(session(), {"x": [1, 2]}),
            generate,
        ]
        given_up, *running = (asyncio.ensure_future(call()) for call in [generate, *calls])
        (connection, _) = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            await client.aclose()
            errors = await asyncio.gather(*running, return_exceptions=True)
        assert [type(error) for error in errors] == [RuntimeError] * len(calls)
    for call in calls:
        with pytest.raises(RuntimeError, match="The client has been closed: make another one"):
            await call()
    await client.aclose()
