"""A real nginx with the edge's configuration passes everything on to gateways, and a session's calls to one of them."""

import asyncio
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import grpc.aio
import httpx
import pytest
from websockets.asyncio.client import connect

from sluice.gateway.settings import Settings
from tests.deploy.test_compose import FOLDER
from tests.gateway.here import PATIENCE_S, Adder, Here, eventually, running
from tests.gateway.puppet import Puppet
from tests.gateway.stub import Stub
from tests.gateway.test_websocket import step

CONFIGURATION = FOLDER / "nginx.conf"
SESSIONS = 24
UNTIL_FIRST = 2  # batches: the encoder's, and the decoder's of the first token


@dataclass
class Edge:
    http: httpx.AsyncClient
    port: int
    stub: Stub
    gateways: list[Here]

    async def open(self, session: str) -> Adder:
        """A session whose client names it in the header, too, as several gateways need it."""
        named = {"sluice-session": session}
        opened = await self.http.post("/v1/models/sum/sessions", json={"session": session}, headers=named)
        assert opened.status_code == 201, opened.text
        return Adder(self.http, session)


def nginx_command() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        missing = "nginx is missing; install the package `nginx`, or run `make system-packages`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def configured(folder: Path, ports: list[int], gateways: list[Here]) -> str:
    """The configuration with other addresses and another folder, and as many gateways as there are."""
    text = CONFIGURATION.read_text().replace("/tmp/", f"{folder}/")
    text = text.replace("worker_processes auto", "worker_processes 1").replace("/dev/stderr", f"{folder}/error.log")
    for listen, port in zip((8000, 8001), ports, strict=True):
        text = text.replace(f"listen {listen}", f"listen 127.0.0.1:{port}")
    for server, found in (
        ("gateway:8080", [here.port for here in gateways]),
        ("gateway:8081", [here.app.state.grpc.port for here in gateways]),
    ):
        assert f"server {server};" in text
        text = text.replace(f"server {server};", " ".join(f"server 127.0.0.1:{port};" for port in found))
    return text


@asynccontextmanager
async def edge(folder: Path, gateways: list[Here]) -> AsyncIterator[Edge]:
    ports = free_ports(2)
    file = folder / "nginx.conf"
    file.write_text(configured(folder, ports, gateways))
    command = [nginx_command(), "-c", str(file), "-p", str(folder), "-e", f"{folder}/error.log", "-g", "daemon off;"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports[0]}", timeout=PATIENCE_S, trust_env=False, verify=False
        )
        async with http, grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            await eventually((folder / "nginx.pid").exists)
            yield Edge(http, ports[0], Stub(channel), gateways)
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge in front of two gateways with one model server."""
    puppet = Puppet(tmp_path)
    await puppet.start()
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running(puppet)) for _ in range(2)]
        yield await stack.enter_async_context(edge(tmp_path, gateways))
    await puppet.stop()


async def test_a_call_of_any_size_an_answer_and_an_error_pass(behind: Edge) -> None:
    rows = [[1.0, 2.0]] * 4
    answer = await behind.http.post("/v1/models/plain:predict", json={"instances": rows})
    assert answer.json() == {"predictions": [[2.0, 4.0]] * 4}
    large = await behind.http.post("/v1/models/plain:predict", content=b" " * (Settings(backend="a:1").body_bytes + 1))
    assert (large.status_code, large.headers["sluice-code"]) == (413, "body_too_large")
    unknown = await behind.http.get("/v1/sessions/nobody")
    assert (unknown.status_code, unknown.headers["sluice-code"]) == (404, "session_not_found")


async def test_metrics_are_not_for_everybody(behind: Edge) -> None:
    assert (await behind.http.get("/metrics")).status_code == 404
    assert (await behind.http.get("/readyz")).status_code == 200


async def test_a_websocket_passes(behind: Edge) -> None:
    adder = await behind.open("talker")
    async with connect(f"ws://127.0.0.1:{behind.port}/v1/sessions/talker/stream", proxy=None) as opened:
        for n in range(3):
            await step(opened, adder, (n, 1))


async def test_events_pass_as_they_come(behind: Edge) -> None:
    """Were they kept until the answer is whole, the first would wait for the rest, which waits for it to arrive."""
    arrived, batches = asyncio.Event(), count(1)

    async def before(_: object) -> None:
        if next(batches) > UNTIL_FIRST:
            await arrived.wait()

    behind.gateways[0].puppet.before = before
    body = {"instances": ["abc"], "stream": True}
    async with behind.http.stream("POST", "/v1/models/speller:generate", json=body) as response:
        names = []
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
                arrived.set()
    assert names == ["token", "token", "token", "result", "done"]


async def test_a_session_has_one_gateway(behind: Edge) -> None:
    adders = [await behind.open(f"s-{n}") for n in range(SESSIONS)]
    for adder in adders:
        await adder.goes_on()
    held = [len(here.gateway.engine.scheduler.sessions) for here in behind.gateways]
    assert sum(held) == SESSIONS
    assert min(held) > 0


async def test_a_session_over_grpc_has_one_gateway(behind: Edge) -> None:
    for n in range(SESSIONS):
        named = [("sluice-session", f"s-{n}")]
        await behind.stub.Open(model="sum", session=f"s-{n}", metadata=named)
        assert (await behind.stub.step(f"s-{n}", [3, 5], metadata=named))["step"] == 1
    held = [len(here.gateway.engine.scheduler.sessions) for here in behind.gateways]
    assert sum(held) == SESSIONS
    assert min(held) > 0


async def test_calls_without_a_session_go_to_all(behind: Edge) -> None:
    for _ in range(SESSIONS):
        await behind.http.post("/v1/models/plain:predict", json={"instances": [[1.0, 2.0]]})
    name = 'sluice_requests_total{call="predict",model="plain",outcome="ok"}'
    counted = [(await here.metrics())[name] for here in behind.gateways]
    assert sum(counted) == SESSIONS
    assert min(counted) > 0


def test_an_idle_connection_is_closed_by_the_edge_before_the_gateway_does() -> None:
    idle = re.findall(r"keepalive_timeout (\d+)s;", CONFIGURATION.read_text())
    assert len(idle) == 2
    assert all(int(each) < Settings(backend="a:1").keep_alive_s for each in idle)
