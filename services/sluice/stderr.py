"""Standard error, which a process may outlive: that it cannot be written to stops nothing that the process is doing."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_GONE = (errno.EPIPE, errno.EIO)  # the program that read it has ended; the terminal is closed

if sys.stderr is None:  # as after `2>&-`: what is written goes nowhere, and no other file gets its number
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115 - it stays open as long as the process


def write(text: str) -> None:
    with _unless_gone():
        sys.stderr.write(text)


def flush() -> None:
    with _unless_gone():
        sys.stderr.flush()


def say(text: str) -> None:
    """Write it at once."""
    write(text)
    flush()


def pass_on(data: bytes) -> None:
    """Write at once what another process has written to its standard error."""
    with _unless_gone():
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:  # from now on, and at the end of the process, what is written goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
