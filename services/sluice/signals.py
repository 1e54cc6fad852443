"""How a process ends that is told to before it has anything to finish. It imports next to nothing, to be early."""

import os
import signal
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # a terminal that closes; Windows has none
# What tells a process to end. It is not to end with its terminal if hanging up was ignored before, as under nohup.
SIGNALS = (
    signal.SIGTERM, signal.SIGINT, *(() if signal.getsignal(_HANGUP) is signal.SIG_IGN else (_HANGUP,))
)  # fmt: skip
EXIT = 128  # an exit code tells a signal by this and its number


def end_when_told() -> None:
    """End at once at a signal, until somebody else handles it.

    An exception, as Python raises it at Ctrl-C, would come out of whatever is being imported at that moment. Without a
    handler the first process of a container would not hear SIGTERM.
    """
    for each in SIGNALS:
        signal.signal(each, _end)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(EXIT + number)
