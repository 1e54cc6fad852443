"""How processes log: one line an event on standard error, and nobody else's chatter in between."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from sluice import stderr

LogFormat = Literal["text", "json"]
LOG_FORMAT = (
    "How lines of the log are written to standard error: `text` for people, or `json`, an object a line with `event`, "
    "`level`, `timestamp` and what else there is to say, for programs."
)


class _Others(logging.Handler):
    """Tells the warnings of libraries as our own."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell(record.getMessage(), logger=record.name, exc_info=record.exc_info)


def configure(log_format: LogFormat = "text") -> None:
    """Log at INFO to standard error: text, in colour on a terminal, or a JSON object a line. It may be called again."""
    logging.basicConfig(handlers=[_Others(logging.WARNING)])
    form: tuple[structlog.typing.Processor, ...] = (
        structlog.processors.TimeStamper(fmt="%H:%M:%S"),
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24),
    )
    if log_format == "json":
        form = (
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *form],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stderr),  # type: ignore[arg-type]  # as a file that is printed to
    )


@contextmanager
def quiet_import(*, keras: bool = True) -> Iterator[None]:
    """While TensorFlow is imported: it writes to the file descriptor before it knows its own log level.

    Without `keras` it does not import Keras in passing, with all that Keras imports, which takes as long as the rest.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr.flush()
    collecting = gc.isenabled()
    gc.disable()  # what is imported stays, and looking for garbage in it takes a fifth of the time
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    hidden = not keras and "keras" not in sys.modules
    if hidden:
        sys.modules["keras"] = None  # type: ignore[assignment]  # Python's way of saying that there is no such module
    try:
        yield
    finally:
        if hidden:
            del sys.modules["keras"]
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        if collecting:
            gc.enable()
