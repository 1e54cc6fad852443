"""Standard error, which a process outlives: that nobody reads it any more stops nothing that the process is doing."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
    except BrokenPipeError:  # from now on, and at the end of the process, what is written goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
