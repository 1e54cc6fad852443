"""How a process ends that is told to before it has anything to finish. It imports next to nothing, to be early."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # a terminal that closes; Windows has none
# What tells a process to end. It is not to end with its terminal if hanging up was ignored before, as under nohup.
SIGNALS = (
    signal.SIGTERM, signal.SIGINT, *(() if signal.getsignal(_HANGUP) is signal.SIG_IGN else (_HANGUP,))
)  # fmt: skip
_GRACE_S = 5.0
EXIT = 128  # an exit code tells a signal by this and its number


def end_when_told() -> None:
    """End at once at a signal, until somebody else handles it.

    An exception, as Python raises it at Ctrl-C, would come out of whatever is being imported at that moment. Without a
    handler the first process of a container would not hear SIGTERM.
    """
    for each in SIGNALS:
        signal.signal(each, _end)


@contextmanager
def exits_when_told() -> Iterator[None]:
    """In the block each signal but Ctrl-C's is an exit, before which what was begun is left as at an error.

    In another thread than the main one, which hears of signals, the block is as without it.
    """
    told = (each for each in SIGNALS if each != signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.signal(each, _exit) for each in told} if in_main else {}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def end_with_parent() -> None:
    """End as at SIGTERM when standard input ends, whose other end the parent holds; at once if that takes too long.

    The parent's death ends it, too, however that came.
    """
    threading.Thread(target=_await_parent, name="parent", daemon=True).start()


def _await_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(EXIT + signal.SIGTERM)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(EXIT + number)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(EXIT + number)
