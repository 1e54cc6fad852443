"""Calls that are begun together and answered together.

It does not know what is called.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sluice.gateway.core.predict import Cancel, Done
from sluice.policy.errors import SluiceError


def together(begins: Sequence[Callable[[Done], Cancel]], done: Done) -> Cancel:
    """Begin calls at the same time; `done` gets their outcomes, in order, or the first error, which withdraws the rest.

    What is returned cancels them all.

    Raises:
        SluiceError: one of them is refused; those before it are withdrawn.
    """
    calls = _Together(done, len(begins))
    try:
        for index, begin in enumerate(begins):
            calls.begun(begin(partial(calls.settled, index)))
    except SluiceError:
        calls.cancel()
        raise
    return calls.cancel


class _Together:
    def __init__(self, done: Done, count: int) -> None:
        self._done = done
        self._cancels: list[Cancel] = []
        self._outcomes: list[Any] = [None] * count
        self._missing = set(range(count))

    def begun(self, cancel: Cancel) -> None:
        self._cancels.append(cancel)

    def settled(self, index: int, outcome: Any) -> None:
        if index not in self._missing:  # there was an error before
            return
        self._missing.discard(index)
        if isinstance(outcome, SluiceError):
            self.cancel()
            self._done(outcome)
            return
        self._outcomes[index] = outcome
        if not self._missing:
            self._done(self._outcomes)

    def cancel(self) -> None:
        """Withdraw the calls that have not ended."""
        missing, self._missing = self._missing, set()
        for index, cancel in enumerate(self._cancels):
            if index in missing:
                cancel()
