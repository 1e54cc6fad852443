"""The evaluator as the gateway sees it: a process of its own, where a setting says, or a child that is started late.

It does not know what is evaluated, nor who asks.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from sluice.gateway.upstream.child import Child
from sluice.policy.errors import BackendUnavailable

log = structlog.get_logger()

_LOOK_S = 0.05  # how often a child that starts is looked for


_DATABASE = "SLUICE_EVALUATOR_DATABASE"  # with a password in it, perhaps


def evaluator_environment(database: str | None) -> Mapping[str, str]:
    """Where an evaluator keeps what it does, for its environment: everybody can read a process's arguments."""
    return {} if database is None else {_DATABASE: database}


def evaluator_arguments(url: str, data_roots: Sequence[str], log_format: str, socket: Path) -> Sequence[str]:
    """Those of an evaluator for the gateway at `url`, which ends with its parent."""
    arguments = ["-m", "sluice.cli", "--end-with-parent", "evaluator", "--gateway", url, "--http", f"unix:{socket}"]
    arguments += ["--log-format", log_format]
    if data_roots:
        arguments += ["--data-roots", ",".join(data_roots)]
    return arguments


class Evaluator:
    """Where the evaluator is: at `address`, or else a child, started when it is asked for; see `Child`."""

    def __init__(
        self, address: str | None, arguments: Callable[[Path], Sequence[str]], environment: Mapping[str, str]
    ) -> None:
        self._address = address
        self._environment = environment
        self._arguments = arguments
        self._own: _Own | None = None

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        return "The evaluator" if self._address is None else f"The evaluator at {self._address}"

    @property
    def trouble(self) -> str:
        """Why it cannot be asked now, if that is known."""
        return self._own.trouble if self._own is not None else ""

    async def address(self) -> str:
        """HOST:PORT or unix:PATH, once there is an evaluator.

        Raises:
            BackendUnavailable: it will not start.
        """
        return self._address or f"unix:{await self._started()}"

    async def close(self) -> None:
        """End the child, if there is one."""
        if self._own is not None:
            await self._own.stop()

    async def _started(self) -> Path:
        """The socket of a child that listens."""
        own, over = self._own, None
        if own is None or own.hopeless:  # what it lacked may have been installed by now
            over, own = own, _Own(self._arguments, self._environment)
            self._own = own
        if over is not None:
            await asyncio.shield(over.stop())  # also if nobody waits any more
        await own.known.wait()
        if own.hopeless:
            raise BackendUnavailable(f"Evaluations cannot be run here: {own.trouble}.")
        return own.child.socket


class _Own:
    """A child that is kept running: `known` is set while it listens, or once it is `hopeless`."""

    def __init__(self, arguments: Callable[[Path], Sequence[str]], environment: Mapping[str, str]) -> None:
        self.known = asyncio.Event()
        self.hopeless = False
        self.trouble = "it is still starting"
        self.child = Child(
            "evaluator", arguments, reached=lambda: self._reached, died=self._lost, hopeless=self._give_up,
            environment=environment,
        )  # fmt: skip
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
