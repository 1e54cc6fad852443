"""The whole gateway in one loop with a puppet model server, and what tests say to it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx
import uvicorn.server
from fastapi import FastAPI

from sluice.gateway.app import create_app
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.server import Server, server_config
from sluice.gateway.settings import Settings
from sluice.listener import BACKLOG
from tests.gateway.puppet import Puppet

PATIENCE_S = 20.0
# gRPC's asyncio shuts down with its last channel and leaves a socket unclosed, which is a warning: this keeps it up.
grpc.aio.init_grpc_aio()


class _Hasty:
    """What uvicorn takes for asyncio: it looks every tenth of a second whether to end, and then waits for another."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


uvicorn.server.asyncio = _Hasty()  # type: ignore[attr-defined, assignment]


async def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until `condition()`, which may be awaitable, holds; its value."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.001)


async def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The server-sent events of an answer that is being streamed, by name and data."""
    assert (response.status_code, response.headers["content-type"][:17]) == (200, "text/event-stream")
    found: list[tuple[str, Any]] = []
    async for line in response.aiter_lines():
        kind, _, value = line.partition(": ")
        if kind == "event":
            found.append((value, None))
        elif kind == "data":
            found[-1] = (found[-1][0], json.loads(value))
    return found


class Gate:
    """Holds the puppet's batches back while it is shut."""

    def __init__(self, puppet: Puppet) -> None:
        self._open = asyncio.Event()
        puppet.before = self._pass

    async def _pass(self, _: Any) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


@dataclass
class Adder:
    """A client with a session on the model `sum`, and what its total must be."""

    http: httpx.AsyncClient
    id: str
    total: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: int = 0

    async def step(self, x: Any = (1, 2), headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        body = {"inputs": list(x) if isinstance(x, tuple) else x, **more}
        return await self.http.post(f"/v1/sessions/{self.id}:step", json=body, headers=headers)

    async def scan(self, xs: Any, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        body = {"inputs": xs, **more}
        return await self.http.post(f"/v1/sessions/{self.id}:scan", json=body, headers=headers)

    async def view(self) -> Any:
        return (await self.http.get(f"/v1/sessions/{self.id}")).json()

    async def waiting(self) -> int:
        waiting: int = (await self.view())["waiting"]
        return waiting

    def added(self, x: tuple[float, float]) -> dict[str, Any]:
        """What a step with `x` must answer; from now on it counts as done."""
        self.total = [total + each for total, each in zip(self.total, x, strict=True)]
        self.steps += 1
        return {
            "outputs": {"total": self.total, "doubled": [2 * each for each in self.total]},
            "step": self.steps,
        }

    async def goes_on(self, x: tuple[float, float] = (3, 5)) -> None:
        """Its next step is answered, and rightly: the state is what it must be."""
        response = await self.step(x)
        assert response.status_code == 200, response.text
        assert response.json() == self.added(x)


@dataclass
class Here:
    """A running gateway."""

    puppet: Puppet
    app: FastAPI
    server: Server
    http: httpx.AsyncClient
    port: int

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    @property
    def ready(self) -> bool:
        return self.gateway.catalog.ready and bool(self.gateway.catalog.models)

    async def open(self, **body: Any) -> Adder:
        return Adder(self.http, await self.opened("sum", **body))

    async def opened(self, model: str, **body: Any) -> str:
        """The id of a new session on any model."""
        response = await self.http.post(f"/v1/models/{model}/sessions", json=body)
        assert response.status_code == 201, response.text
        id: str = response.json()["session"]
        return id

    async def adders(self, count: int) -> list[Adder]:
        return [await self.open() for _ in range(count)]

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    async def columns(self, ids: list[str], xs: Any, model: str = "sum", **more: Any) -> httpx.Response:
        """One step of many sessions."""
        body = {"sessions": ids, "inputs": xs, **more}
        return await self.http.post(f"/v1/models/{model}/sessions:step", json=body)

    def nothing_left(self) -> bool:
        scheduler = self.gateway.engine.scheduler
        return not scheduler.busy and not scheduler.settled


@contextmanager
def unread(here: Here) -> Iterator[None]:
    """Meanwhile nobody reads what the gateway writes on the HTTP connections that are open now."""
    connections = [*here.server.server_state.connections]
    for each in connections:
        each.pause_writing()  # type: ignore[union-attr]
    yield
    for each in connections:
        each.resume_writing()  # type: ignore[union-attr]


@asynccontextmanager
async def running(puppet: Puppet, *, reached: bool = True, **more: Any) -> AsyncIterator[Here]:
    """A gateway on ports of its own, served in this loop as in production, once it has `reached` its model server."""
    ours = {"backend": puppet.address, "poll_s": 0.02, "half_closed_s": 0.05, "grpc": "127.0.0.1:0"}
    ours |= {"evaluator": "unix:/nowhere"}  # none is started where a test does not say so
    settings = Settings(**{**ours, **more})
    app = create_app(settings)
    server = Server(server_config(app, settings), app, settings.drain_s)
    listener = _listener()
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await eventually(lambda: server.started or serving.done())
        port = listener.getsockname()[1]
        limits = httpx.Limits(max_connections=None)
        # Without TLS there is nothing to verify, and certificates take longer to load than most tests take.
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, limits=limits, trust_env=False, verify=False
        ) as http:
            here = Here(puppet, app, server, http, port)
            await eventually(lambda: not reached or not here.gateway.catalog.unreachable)
            yield here
    finally:
        server.should_exit = True
        await serving


def _listener() -> socket.socket:
    """A free port. That it says TCP makes asyncio send at once what is written in parts, as uvloop does anyway."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which must be whole: status, code twice, a sentence."""
    assert response.status_code == status, response.text
    assert response.headers["sluice-code"] == code
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body.keys() <= {"error", "code", "details"}
    assert body["code"] == code
    assert len(body["error"]) > 10
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return body


def refused_as_tf_serving(response: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error on one of TensorFlow Serving's paths."""
    assert response.status_code == status, response.text
    assert response.headers["sluice-code"] == code
    body: dict[str, str] = response.json()
    assert body.keys() == {"error"}
    return body["error"]
