"""A gateway and a model server of a command's own, over a folder of models, for as long as the command needs them.

It does not know what they are asked.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sluice.cli.errors import NOT_REACHABLE, CommandError
from sluice.client import Client, SluiceError

_LOOPBACK = "127.0.0.1"
_READY_S, _PAUSE_S = 120.0, 0.1
_STOP_S = 30.0  # longer than a gateway takes to drain and to stop its model server


@dataclass(frozen=True, slots=True)
class Embedded:
    """A `sluice serve` of one's own: its addresses for HTTP and gRPC, and its process."""

    http: str
    grpc: str
    process: subprocess.Popen[bytes]

    def until_ready(self) -> None:
        """Wait until it serves all models of its folder.

        Raises:
            CommandError: it has ended, or is not ready after two minutes; says why.
        """
        deadline = time.monotonic() + _READY_S
        with Client(self.http, attempts=1) as client:
            while reason := _trouble(client):
                if self.process.poll() is not None:
                    raise CommandError(f"the gateway ended with code {self.process.returncode}", NOT_REACHABLE)
                if time.monotonic() > deadline:
                    raise CommandError(f"the gateway is not ready after {_READY_S:g} s: {reason}", NOT_REACHABLE)
                time.sleep(_PAUSE_S)


def _trouble(client: Client) -> str:
    """Why the gateway is not ready; empty if it is."""
    try:
        client.ready()
    except SluiceError as error:
        return error.message
    return ""


@contextmanager
def embedded(models: Path, log: Path, *flags: str) -> Iterator[Embedded]:
    """Start one over a folder of models, with its output in the file `log`, and stop it at the end of the block.

    It is stopped whatever ends the block. If it does not stop in time it is killed; its model server then ends by
    itself.
    In the block nothing goes to it through a proxy, whatever the environment says of proxies.
    """
    http, grpc = (f"{_LOOPBACK}:{port}" for port in _free_ports())
    command = [sys.executable, "-m", "sluice.cli", "serve", "--models", str(models)]
    command += ["--http", http, "--grpc", grpc, *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)  # noqa: S603 - ourselves
    try:
        with _no_proxy():
            yield Embedded(f"http://{http}", f"grpc://{grpc}", process)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _no_proxy() -> Iterator[None]:
    """Ask this machine directly, which httpx and gRPC read from the environment."""
    lower = os.environ.get("no_proxy")
    before = os.environ.get("NO_PROXY", "") if lower is None else lower
    os.environ["no_proxy"] = f"{before},{_LOOPBACK}" if before else _LOOPBACK
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if lower is not None:
            os.environ["no_proxy"] = lower


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind((_LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in (one, other)]
