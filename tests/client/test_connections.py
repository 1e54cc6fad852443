"""Connections to a gateway are used again, each by one request at a time, and none is lost whatever becomes of one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpcore
import httpx
import pytest

from sluice.client import connections
from sluice.client.connections import Connections, through_proxy
from sluice.client.http import _certificates
from tests.gateway.here import PATIENCE_S, eventually

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Server:
    """Answers each request when `may_answer`, and counts connections; `writers` are those that are open."""

    url: str = ""
    opened: int = 0
    running: int = 0
    most: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.running += 1
                self.most = max(self.most, self.running)
                await self.may_answer.wait()
                self.running -= 1
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.remove(writer)
            writer.close()

    async def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()
        await eventually(lambda: not self.writers)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server()
    server.may_answer.set()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(
            transport=Connections(_certificates()), base_url=server.url, timeout=PATIENCE_S
        ) as client:
            yield server, client
        await eventually(lambda: not server.writers)  # the client's end closes them


async def test_a_connection_is_used_again_and_only_as_many_are_opened_as_requests_run_at_a_time() -> None:
    async with served() as (server, client):
        for _ in range(5):
            assert (await client.get("/")).text == "ok"
        assert server.opened == 1
        server.may_answer.clear()
        asked = [asyncio.create_task(client.get("/")) for _ in range(8)]
        await eventually(lambda: server.running == 8)
        server.may_answer.set()
        assert [each.text for each in await asyncio.gather(*asked)] == ["ok"] * 8
        for _ in range(3):
            await client.get("/")
        assert server.opened == 8


async def test_a_connection_that_was_closed_while_it_was_idle_is_not_used() -> None:
    async with served() as (server, client):
        server.may_answer.clear()
        asked = [asyncio.create_task(client.get("/")) for _ in range(3)]
        await eventually(lambda: server.running == 3)
        server.may_answer.set()
        await asyncio.gather(*asked)
        await server.hang_up()
        assert (await client.get("/")).text == "ok"
        assert server.opened == 4


async def test_a_request_that_is_answered_after_the_end_closes_its_connection() -> None:
    async with served() as (server, client):
        server.may_answer.clear()
        asked = [asyncio.create_task(client.get("/")) for _ in range(3)]
        await eventually(lambda: server.running == 3)
        await client.aclose()
        server.may_answer.set()
        assert [each.text for each in await asyncio.gather(*asked)] == ["ok"] * 3
        await eventually(lambda: not server.writers)


async def test_requests_wait_while_as_many_run_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_AT_ONCE", 3)
    async with served() as (server, client):
        server.may_answer.clear()
        asked = [asyncio.create_task(client.get("/")) for _ in range(10)]
        await eventually(lambda: server.running == 3)
        server.may_answer.set()
        await asyncio.gather(*asked)
        assert server.most == 3


async def test_requests_that_are_given_up_or_broken_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_AT_ONCE", 2)
    async with served() as (server, client):
        for _ in range(3):
            server.may_answer.clear()
            asked = [asyncio.create_task(client.get("/")) for _ in range(2)]
            await eventually(lambda: server.running == 2)
            asked[0].cancel()
            for writer in server.writers:
                writer.transport.abort()
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            assert isinstance(results[1], httpcore.NetworkError | httpcore.ProtocolError)
            server.may_answer.set()
            await eventually(lambda: not server.running)
            assert (await client.get("/")).text == "ok"
        async with client.stream("GET", "/"):
            pass  # its body is not read
        assert (await client.get("/")).text == "ok"


async def test_a_server_that_is_not_there_leaves_room_for_others(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_AT_ONCE", 1)
    async with served() as (server, client):
        for _ in range(3):
            with pytest.raises(httpcore.ConnectError):
                await client.get(f"http://127.0.0.1:{unused_tcp_port}/")
        assert (await client.get(server.url)).text == "ok"


def test_a_proxy_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not through_proxy("http://gateway:8080")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1,inside")
    assert through_proxy("http://gateway:8080")
    assert not through_proxy("https://gateway:8080")
    assert not through_proxy("http://inside:8080")
    assert not through_proxy("http://127.0.0.1:8080")
