"""The embedded model server as a child process: started, watched, restarted when it dies, stopped with the gateway."""

import asyncio
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 10.0  # a child that has lived this long has not failed to start
_STOP_S = 10.0


class ModelServerChild:
    """Runs `python -m sluice.model_server` on a Unix socket; `died` is told at once when it ends by itself."""

    def __init__(
        self, models: Path, *, intra_op_threads: int, inter_op_threads: int, died: Callable[[str], None]
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-")
        self.socket = Path(self._folder.name) / "model_server.sock"
        self._command = [
            sys.executable, "-m", "sluice.model_server",
            f"--models={models}", "--port=0", "--rest_api_port=0",
            f"--grpc_socket_path={self.socket}", "--stop_with_parent=true",
            f"--tensorflow_intra_op_parallelism={intra_op_threads}",
            f"--tensorflow_inter_op_parallelism={inter_op_threads}",
        ]  # fmt: skip
        self._died = died
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child and keep it running until `stop`."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            await self._end(self._process)
        self._folder.cleanup()

    async def _keep(self) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            started = loop.time()
            # The child hears no signals that are meant for the gateway. It stops when its standard input ends, so a
            # gateway that is killed takes it along.
            try:
                self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, start_new_session=True)
                log.info("model server started", pid=self._process.pid)
                ended = f"ended with code {await self._process.wait()}"
            except OSError as error:
                ended = f"cannot be started: {error}"
            self._died(f"the embedded model server {ended}; it is being restarted")
            log.error("model server gone", reason=ended)
            failures = 0 if loop.time() - started > _STEADY_S else failures + 1
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    async def _end(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
