"""Runs the gateway on a port, and stops it gracefully: not ready at once, finish what runs, then leave."""

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from sluice.gateway.app import create_app
from sluice.gateway.http.connection import Clocks, GatewayProtocol, SocketProtocol
from sluice.gateway.settings import Settings
from sluice.listener import listen
from sluice.policy.errors import Draining
from sluice.signals import SIGNALS

log = structlog.get_logger()

_LAST_WORDS_S = 2  # for answers that are on their way when everything has been settled


class Server(uvicorn.Server):
    """The first signal that tells it to end drains, as soon as it has started; a second one stops at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        app.state.give_up = self._give_up
        self.failed = False  # it could not serve, and has said why
        self._app = app
        self._drain_s = drain_s
        self._told = ""  # the name of the first signal
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        spare_the_collector()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._app.state.url = f"http://{_reachable(host)}:{port}"
        log.info(
            "listening",
            http=f"http://{host}:{port}",
            docs=f"http://{host}:{port}/docs",
            grpc=f"{self._app.state.settings.grpc.rpartition(':')[0]}:{self._app.state.grpc.port}",
        )
        if self._told and self._draining is None:
            self._drain()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which knows fewer of them."""
        with super().capture_signals():
            heard = SIGNALS if threading.current_thread() is threading.main_thread() else ()
            before = {each: signal.signal(each, self.handle_exit) for each in heard}
            try:
                yield
            finally:
                for each, handler in before.items():
                    signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            self.should_exit = self.force_exit = True
            return
        self._told = signal.Signals(sig).name
        if self.started:
            self._drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # or what the application has opened would stay
            self._app.state.grpc.cut()
            await self.lifespan.shutdown()

    def _drain(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drained())

    async def _drained(self) -> None:
        gateway = self._app.state.gateway
        gateway.draining = True
        self._app.state.grpc.drain()
        scheduler = gateway.engine.scheduler
        busy = scheduler.busy or bool(self.server_state.tasks)
        awaited = {"waits_for": f"requests that run, {self._drain_s:g} s at most; a second signal ends it at once"}
        log.info("stopping", signal=self._told, sessions=len(scheduler.sessions), **awaited if busy else {})
        try:
            await asyncio.wait_for(gateway.engine.drained(), self._drain_s)
        except TimeoutError:
            log.warning("requests were still running", drain_s=self._drain_s)
            gateway.engine.refuse_all(Draining("This gateway has stopped before the answer came. Try again."))
        self.should_exit = True

    def _give_up(self, reason: str) -> None:
        log.error("cannot serve", reason=reason)
        self.should_exit = self.failed = True


def _reachable(host: str) -> str:
    """An address of this machine at which a server that listens there is reached."""
    found = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is not listened on
    return f"[{found}]" if ":" in found else found


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code: 1 if that could not be done.

    Raises:
        CannotListen: an address cannot be had.
    """
    listener = listen(settings.http, "--http")
    listen(settings.grpc, "--grpc").close()  # it is opened again with the application, which cannot say so well
    app = create_app(settings)
    server = Server(server_config(app, settings), app, settings.drain_s)
    server.run([listener])
    return 1 if server.failed else 0


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
