"""Runs the evaluator on an address, and stops it: what runs is resumed at the next start."""

import asyncio
import signal
import socket
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from sluice.client import AsyncClient
from sluice.evaluator.http.app import create_app
from sluice.evaluator.jobs.database import opened
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.service import Parts, Service
from sluice.evaluator.settings import Settings
from sluice.listener import UNIX, listen, listen_at

log = structlog.get_logger()

_LAST_WORDS_S = 2  # for answers that are on their way
_REACH_S = 2.0


class Server(uvicorn.Server):
    """The first SIGTERM or SIGINT ends it when answers have been given, a second one at once."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str) -> None:
        super().__init__(config)
        self._service = service
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("listening", http=self._address)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._service.runner.refused is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        log.info("stopping", signal=signal.Signals(sig).name, evaluations=len(self._service.runner.progress))
        if self.started:
            asyncio.get_running_loop().call_soon_threadsafe(self._service.runner.changes.end)


def serve(settings: Settings, parts: Parts) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        CannotListen: the address cannot be had.
        CannotUse: the database cannot be used, or another evaluator has taken it.
    """
    path = Path(settings.http.removeprefix(UNIX)) if settings.http.startswith(UNIX) else None
    listener = listen(settings.http, "--http") if path is None else listen_at(path, "--http")
    try:
        with opened(settings.database) as database:
            service = Service(
                Store(database), parts, settings.gateway,
                at_once=settings.at_once, upload_kept_s=settings.upload_kept_s, now=time.time,
            )  # fmt: skip
            app = create_app(service, settings.gateway, partial(_reach, settings.gateway))
            config = uvicorn.Config(
                app, lifespan="on", ws="none", log_config=None, access_log=False, server_header=False,
                proxy_headers=False, timeout_graceful_shutdown=_LAST_WORDS_S,
            )  # fmt: skip
            Server(config, service, _shown(listener, path)).run([listener])
            if service.runner.refused is not None:
                raise service.runner.refused
    finally:
        listener.close()
        if path is not None:
            path.unlink(missing_ok=True)
    return 0


def _shown(listener: socket.socket, path: Path | None) -> str:
    """The address as one would ask it; of one that others can reach it warns."""
    if path is not None:
        return f"{UNIX}{path}"
    host, port = listener.getsockname()[:2]
    if not ip_address(host).is_loopback:
        risk = "whoever reaches this address can evaluate, and have data read below the data roots"
        log.warning("open to others", http=f"{host}:{port}", risk=risk)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _reach(gateway: str) -> None:
    """Raises: SluiceError: the gateway does not answer."""
    async with AsyncClient(gateway, attempts=1, timeout_s=_REACH_S) as client:
        await client.models()
