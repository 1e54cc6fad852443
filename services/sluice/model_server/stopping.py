"""How the model server hears that it is to stop. It does not know what is to be finished first."""

import os
import signal
import sys
import threading
from collections.abc import Callable

import structlog

from sluice.signals import SIGNALS

log = structlog.get_logger()


class Stop(threading.Event):
    """Set when the process is to end, by a thread of its own, as the main one may be deep in TensorFlow.

    While there is nothing that it `finishes` first, and when it is told a second time, the process ends at once.
    """

    def __init__(self, *, with_parent: bool) -> None:
        """Listen from now on: for signals, or, `with_parent`, for the end of standard input."""
        super().__init__()
        self.finishes = False
        if with_parent:
            # A child outlives signals that reach all processes at once: its parent may still need it to finish.
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # here and in later threads, so that only ours hears them
        hear = _end_of_input if with_parent else _signals
        threading.Thread(target=hear, args=(self._told,), name="stop", daemon=True).start()

    def _told(self) -> None:
        if self.is_set() or not self.finishes:
            os._exit(0)  # whatever is being imported or loaded
        self.set()
        log.info(
            "stopping", waits_for="calls that run, versions that are being loaded; a second signal ends it at once"
        )


def _signals(told: Callable[[], None]) -> None:
    while True:
        signal.sigwait(SIGNALS)
        told()


def _end_of_input(told: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    told()
