"""The trace of whatever runs now, for calls of the model server and for the log; nothing where a client gave none.

It is a context variable, as it concerns neither the rules nor the calls that lie between a door and the model server.
"""

import re
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from structlog.contextvars import bind_contextvars

from sluice.wire.trace_context import Trace, read_trace

_ID_LIMIT = 128
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)


def enter(trace: Trace) -> None:
    """From here on what runs in this context belongs to a trace, its lines in the log among it."""
    TRACE.set(trace)
    bind_contextvars(trace_id=trace.id)


def within(headers: Iterable[tuple[bytes, bytes]], request_id: bytes | None) -> Context | None:
    """The context of a request that has a trace; None: it has none."""
    trace = read_trace(headers)
    if trace is None:
        return None
    context = copy_context()
    context.run(enter, trace)
    if request_id is not None:
        context.run(bind_contextvars, request_id=_text(request_id))
    return context


def names(headers: Iterable[tuple[bytes, bytes]], request_id: bytes | None) -> dict[str, str]:
    """What a line in the log says of the request that it belongs to."""
    trace = read_trace(headers)
    said = {} if request_id is None else {"request_id": _text(request_id)}
    return said if trace is None else {**said, "trace_id": trace.id}


def _text(request_id: bytes) -> str:
    """An id as a line says it: gRPC's clients may put anything into one, which is not to reach a terminal."""
    return _CONTROL.sub("?", request_id[:_ID_LIMIT].decode("latin-1"))


class Within:
    """Carries out a gRPC call in a context of its own; see `Handler`."""

    __slots__ = ("_context", "_handler")

    def __init__(self, context: Context, handler: Any) -> None:
        self._context = context
        self._handler = handler

    @property
    def full(self) -> bool:
        full: bool = self._handler.full
        return full

    def receive(self, message: bytes) -> None:
        self._run(self._handler.receive, message)

    def end(self) -> None:
        self._run(self._handler.end)

    def leave(self) -> None:
        self._handler.leave()

    def _run(self, act: Callable[..., None], *arguments: Any) -> None:
        self._context.copy().run(act, *arguments)  # of a copy, as one message may begin the next
