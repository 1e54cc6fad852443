"""Starts, asks, counts and stops the processes of a run, each by its own id.

All of them are started from one process tree, without sessions of their own: the kernel shares the cores among
sessions, not among processes, and would otherwise decide the figures.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
_STOP_S = 15
_TAIL = 400  # characters of a log that an error shows


class Failed(Exception):
    """A case cannot be measured; the sentence says why."""


def python(module: str, *args: object) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *map(str, args)]


def environment() -> dict[str, str]:
    """Ours, without settings of the gateway that happen to be there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}


def free_address() -> str:
    """An address on the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Child:
    """A long-running process of the run; what it prints goes to a log, or with `talks` comes line by line.

    With `apart` it does not hear Ctrl-C at the terminal, only `interrupt`.
    """

    def __init__(self, command: Sequence[str], log: Path, *, talks: bool = False, apart: bool = False) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else out,
                stderr=out,
                text=True,
                process_group=0 if apart else None,
            )
        self._seen = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, user and system."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_bytes(self) -> int:
        return int(self._seen.memory_info().rss)

    @property
    def code(self) -> int | None:
        """How it ended; None: it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raises: Failed: it has ended."""
        if self._process.poll() is not None:
            raise Failed(f"{self._log.stem} ended with code {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][-_TAIL:] if lines else "it said nothing"

    def ask(self, question: str) -> Any:
        """Write a line, and read the line of JSON that answers it.

        Raises:
            Failed: it has ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        else:
            if answer := self._process.stdout.readline():
                return json.loads(answer)
        self._process.wait(_STOP_S)
        raise Failed(f"{self._log.stem} ended with code {self._process.returncode}: {self.last_words()}")

    def interrupt(self, limit_s: float) -> None:
        """As Ctrl-C does; wait until it ends, up to `limit_s` seconds."""
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(limit_s)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def run(command: Sequence[str], limit_s: float) -> str:
    """Run a command to its end; what it printed.

    Raises:
        Failed: it failed, or took longer than `limit_s` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - ourselves, or wrk
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{_name(command)} did not end within {limit_s:g} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Failed(f"{_name(command)}: {words[-_TAIL:]}")
    return done.stdout


def _name(command: Sequence[str]) -> str:
    return command[2] if command[1:2] == ["-m"] else Path(command[0]).name


def find_wrk() -> str | None:
    """Where wrk lies, if it is installed."""
    return shutil.which("wrk")
