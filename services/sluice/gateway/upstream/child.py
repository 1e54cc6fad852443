"""A child process on a Unix socket: started, watched, restarted when it dies, ended with the gateway."""

import asyncio
import os
import signal
import sys
import tempfile
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from pathlib import Path

import structlog

from sluice.stderr import pass_on

log = structlog.get_logger()

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 10.0  # a child that has lived this long has not failed to start
_HOPELESS = 3  # so often in a row for the same reason, and it will not start
_TOLD_BYTES = 4096  # of what it says, so much is remembered


class Child:
    """Runs Python, with the arguments that `arguments` gives for the path of its socket, under `name`.

    It must end when its standard input does. `died` is told at once when it ends by itself, and `hopeless` when it will
    not start: it has not been `reached` yet, and has ended three times for the same reason. `environment` is for what
    others are not to see in its arguments.
    """

    def __init__(
        self,
        name: str,
        arguments: Callable[[Path], Sequence[str]],
        *,
        reached: Callable[[], bool],
        died: Callable[[str], None],
        hopeless: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-")
        self.socket = Path(self._folder.name) / "child.sock"
        self._arguments = arguments(self.socket)
        self._reached = reached
        self._died = died
        self._hopeless = hopeless
        self._environment = environment or {}
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Start the child and keep it running until `stop`."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), context=Context())  # not who asks first's

    async def stop(self) -> None:
        """End it at once: nobody waits for what it may still be doing."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # by itself, a moment ago
                self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    async def _keep(self) -> None:
        loop, failures, before, times = asyncio.get_running_loop(), 0, "", 0
        while True:
            started = loop.time()
            ended = await self._run()
            times = times + 1 if ended == before else 1
            before = ended
            if times == _HOPELESS and not self._reached():
                self._hopeless(f"the {self.name} {ended}, {times} times in a row")
                return
            self._died(f"the {self.name} {ended}; it is being restarted")
            log.error("gone", child=self.name, reason=ended)
            failures = 0 if loop.time() - started > _STEADY_S else failures + 1
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    async def _run(self) -> str:
        """Run it once; how it ended."""
        # The child hears no signals that are meant for the gateway. It stops when its standard input ends, so a
        # gateway that is killed takes it along.
        self.socket.unlink(missing_ok=True)  # of the one before it
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, *self._arguments, stdin=PIPE, stderr=PIPE, start_new_session=True,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        except OSError as error:
            return f"cannot be started: {error}"
        log.info("started", child=self.name, pid=process.pid)
        said = await _passed_on(process.stderr) if process.stderr else ""
        code = await process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}" + (f": {said}" if said else "")


def model_server_arguments(
    models: Path, intra_op_threads: int, inter_op_threads: int, log_format: str, socket: Path
) -> Sequence[str]:
    """Those of the embedded model server."""
    return [
        "-m", "sluice.model_server",
        f"--models={models}", "--port=0", "--rest_api_port=0",
        f"--grpc_socket_path={socket}", "--stop_with_parent=true",
        f"--tensorflow_intra_op_parallelism={intra_op_threads}",
        f"--tensorflow_inter_op_parallelism={inter_op_threads}",
        f"--log_format={log_format}",
    ]  # fmt: skip


async def _passed_on(said: StreamReader) -> str:
    """Pass on what the child says until it ends; the last line of it that has words, without the frame around it."""
    last = b""
    while chunk := await said.read(_TOLD_BYTES):
        pass_on(chunk)
        last = (last + chunk)[-_TOLD_BYTES:]
    lines = [line.strip(" │") for line in last.decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if any(map(str.isalnum, line))), "")
