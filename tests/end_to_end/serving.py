"""Real processes for the tests: `sluice serve` with its model server, and what a client needs to talk to it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_S = 120
JSON = {"content-type": "application/json"}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Gateway:
    """A running `sluice serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def grpc_url(self) -> str:
        """Where gRPC listens, as the log says it."""
        found = re.search(r"grpc=(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text()))
        assert found, self.log.read_text()
        return f"grpc://{found[1]}"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {**JSON, **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return _reply(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error)

    def open(self, model: str, session: str) -> None:
        reply = self.call("POST", f"/v1/models/{model}/sessions", {"session": session})
        assert reply.status == 201, reply.body

    def until_ready(self) -> None:
        eventually(self._ready, READY_S, self.log.read_text)

    def model_server(self) -> int:
        """The process id of the model server that the gateway started last."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return self.call("GET", "/readyz").status == 200
        return False


def _reply(answer: Any) -> Reply:
    raw = answer.read()
    parsed = json.loads(raw) if "json" in (answer.headers.get("content-type") or "") else raw
    return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, parsed)


def eventually(condition: Callable[[], bool], limit_s: float, report: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds, for `limit_s` seconds at most."""
    never, deadline = threading.Event(), time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {report()}"
        never.wait(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}


def finding(modules: Path) -> dict[str, str]:
    """The environment of a process that finds the modules of a folder before all others."""
    path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**environment(), "PYTHONPATH": path}


def sluice(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "sluice.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, **{"env": environment(), **options})


@contextlib.contextmanager
def serving(models: Path, folder: Path, *flags: str) -> Iterator[Gateway]:
    """`sluice serve` on a free port until the end of the block; ready before it begins."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "serve.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "sluice.cli", "serve", "--models", str(models), "--http", address]
    command += ["--grpc", "127.0.0.1:0", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment())
    try:
        gateway = Gateway(f"http://{address}", process, log)
        gateway.until_ready()
        yield gateway
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
