"""The evaluator as the gateway sees it: a process of its own, where a setting says, or a child that is started late.

It does not know what is evaluated, nor who asks.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from sluice.gateway.settings import Settings
from sluice.gateway.upstream.child import Child
from sluice.policy.errors import BackendUnavailable

log = structlog.get_logger()

_LOOK_S = 0.05  # how often a child that starts is looked for


def evaluator_arguments(settings: Settings, url: str, socket: Path) -> Sequence[str]:
    """Those of an evaluator for the gateway at `url`, which ends with its parent."""
    arguments = ["-m", "sluice.cli", "--end-with-parent", "evaluator", "--gateway", url, "--http", f"unix:{socket}"]
    if settings.evaluations_database is not None:
        arguments += ["--database", settings.evaluations_database]
    if settings.evaluations_data_roots:
        arguments += ["--data-roots", ",".join(settings.evaluations_data_roots)]
    return arguments


class Evaluator:
    """Where the evaluator is. Without the setting `evaluator` a child is started when it is first asked for.

    `url` gives the gateway's own address, for the child.
    """

    def __init__(self, settings: Settings, url: Callable[[], str]) -> None:
        self._settings = settings
        self._url = url
        self._own: _Own | None = None

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        address = self._settings.evaluator
        return "The evaluator" if address is None else f"The evaluator at {address}"

    @property
    def trouble(self) -> str:
        """Why it cannot be asked now, if that is known."""
        return self._own.trouble if self._own is not None else ""

    async def address(self) -> str:
        """HOST:PORT or unix:PATH, once there is an evaluator.

        Raises:
            BackendUnavailable: it will not start.
        """
        return self._settings.evaluator or f"unix:{await self._started()}"

    async def close(self) -> None:
        """End the child, if there is one."""
        if self._own is not None:
            await self._own.stop()

    async def _started(self) -> Path:
        """The socket of a child that listens."""
        own, over = self._own, None
        if own is None or own.hopeless:  # what it lacked may have been installed by now
            over, own = own, _Own(partial(evaluator_arguments, self._settings, self._url()))
            self._own = own
        if over is not None:
            await over.stop()
        await own.known.wait()
        if own.hopeless:
            raise BackendUnavailable(f"Evaluations cannot be run here: {own.trouble}.")
        return own.child.socket


class _Own:
    """A child that is kept running: `known` is set while it listens, or once it is `hopeless`."""

    def __init__(self, arguments: Callable[[Path], Sequence[str]]) -> None:
        self.known = asyncio.Event()
        self.hopeless = False
        self.trouble = "it is still starting"
        self.child = Child(
            "evaluator", arguments, reached=lambda: self._reached, died=self._lost, hopeless=self._give_up
        )
        self._reached = False
        self.child.start()
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        self._looking.cancel()
        await self.child.stop()

    async def _look(self) -> None:
        while not await _listens(self.child.socket):  # noqa: ASYNC110 - it is another process that begins to listen
            await asyncio.sleep(_LOOK_S)
        self._reached, self.trouble = True, ""
        self.known.set()

    def _lost(self, reason: str) -> None:
        self.trouble = reason
        self.known.clear()
        if self._looking.done():
            self._looking = asyncio.create_task(self._look())

    def _give_up(self, reason: str) -> None:
        self.trouble, self.hopeless = reason, True
        self._looking.cancel()
        log.error("evaluator cannot be started", reason=reason)
        self.known.set()


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
