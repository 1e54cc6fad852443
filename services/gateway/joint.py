"""Calls that are begun together and answered together.

It does not know what is called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from services.gateway.predict import Cancel, Done
from services.policy.errors import SluiceError


@dataclass(slots=True)
class _Together:
    """Calls that are answered together; the first error is the answer, and withdraws the others."""

    done: Done
    count: int
    cancels: list[Cancel] = field(default_factory=list)
    outcomes: dict[int, Any] = field(default_factory=dict)
    failed: bool = False

    def settled(self, index: int, outcome: Any) -> None:
        if self.failed:
            return
        self.outcomes[index] = outcome
        if isinstance(outcome, SluiceError):
            self.failed = True
            self.cancel()
            self.done(outcome)
        elif len(self.outcomes) == self.count:
            self.done([self.outcomes[index] for index in range(self.count)])

    def cancel(self) -> None:
        for cancel in self.cancels:
            cancel()


def together(begins: Sequence[Callable[[Done], Cancel]], done: Done) -> Cancel:
    """Begin calls at the same time; `done` gets their outcomes in order, or the first error. It returns what cancels.

    Raises:
        SluiceError: one of them is refused; those before it are withdrawn.
    """
    calls = _Together(done, len(begins))
    try:
        for index, begin in enumerate(begins):
            calls.cancels.append(begin(partial(calls.settled, index)))
    except SluiceError:
        calls.cancel()
        raise
    return calls.cancel
