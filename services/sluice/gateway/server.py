"""Runs the gateway on a port, and stops it gracefully: not ready at once, finish what runs, then leave."""

import asyncio
import gc
import signal
import socket
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from sluice.gateway.app import create_app
from sluice.gateway.http.connection import Clocks, GatewayProtocol, SocketProtocol
from sluice.gateway.listener import listen
from sluice.gateway.settings import Settings
from sluice.policy.errors import Draining

log = structlog.get_logger()

_LAST_WORDS_S = 2  # for answers that are on their way when everything has been settled


class Server(uvicorn.Server):
    """The first SIGTERM or SIGINT drains, a second one stops at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            spare_the_collector()
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            log.info(
                "listening",
                http=f"http://{host}:{port}",
                docs=f"http://{host}:{port}/docs",
                grpc=f"{self._app.state.settings.grpc.rpartition(':')[0]}:{self._app.state.grpc.port}",
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None and self.started:
            self._draining = asyncio.get_running_loop().create_task(self._drain(signal.Signals(sig).name))
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self, why: str) -> None:
        gateway = self._app.state.gateway
        gateway.draining = True
        self._app.state.grpc.drain()
        log.info("stopping", signal=why, sessions=len(gateway.engine.scheduler.sessions))
        try:
            await asyncio.wait_for(gateway.engine.drained(), self._drain_s)
        except TimeoutError:
            log.warning("requests were still running", drain_s=self._drain_s)
            gateway.engine.refuse_all(Draining("This gateway has stopped before the answer came. Try again."))
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code: 1 if an address cannot be had."""
    try:
        listener = listen(settings.http)
    except OSError as error:
        log.error("cannot listen", http=settings.http, reason=str(error))  # noqa: TRY400 - no bug of ours
        return 1
    try:
        listen(settings.grpc).close()  # it is opened again with the application, which cannot say so well
    except OSError as error:
        log.error("cannot listen", grpc=settings.grpc, reason=str(error))  # noqa: TRY400 - no bug of ours
        return 1
    app = create_app(settings)
    server = Server(server_config(app, settings), app, settings.drain_s)
    server.run([listener])
    return 0 if server.started else 1


def spare_the_collector() -> None:
    """Let Python's garbage collector leave alone what was made at the start, and what sessions are made of.

    What a step makes is freed by its reference counts. Each full collection would walk all that has been imported and
    every open session, tens of milliseconds in which nobody is answered, and find nothing.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(2_000, 10, 10)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application, its hot calls ahead of it."""
    return uvicorn.Config(
        app, loop="uvloop", lifespan="on",
        http=partial(  # type: ignore[arg-type]
            GatewayProtocol, app.state.calls, app.state.ids, app.state.cors, Clocks(settings)
        ),
        ws=SocketProtocol, ws_max_size=settings.body_bytes, ws_per_message_deflate=False,
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=_LAST_WORDS_S,
    )  # fmt: skip
