"""What a session is, said the slow way: one list of calls, done one at a time in plain Python numbers."""

from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any, NamedTuple

from sluice.policy.errors import SessionClosed, SessionEvicted, SessionExpired, SessionVersionGone, SluiceError
from sluice.policy.session import Event, Session, Step

from .puppet import PRIME, SPOIL

Numbers = list[list[float]]

# What clients of an ended session are told.
WHY = {
    Event.CLOSE: SessionClosed,
    Event.EXPIRE: SessionExpired,
    Event.EVICT: SessionEvicted,
    Event.RETIRE: SessionVersionGone,
}


class Told(NamedTuple):
    """What a session's client is told where it is no error. `y`: by time step."""

    step: int
    y: Numbers


class Refusal(NamedTuple):
    error: type[SluiceError]
    details: dict[str, Any]


@dataclass(eq=False)
class Call:
    """One session's part of a step that was taken on. `xs` holds one pair of numbers for each time step.

    told: what its client will hear whatever happens to the rest of the step, once that is known.
    """

    session: Session
    kind: str
    xs: Numbers
    number: int | None
    step: Step
    told: Told | Refusal | None = None


@dataclass(eq=False)
class Diary:
    """One session as its client could have kept it on paper."""

    session: Session
    hash: list[float]
    ttl_s: float
    until: float
    used_at: float
    version: int
    count: int = 0
    current: int = 0
    calls: list[Call] = field(default_factory=list)
    last: tuple[int, str, Numbers] | None = None
    last_outputs: Numbers = field(default_factory=list)

    @property
    def expires_at(self) -> float:
        return self.until if self.calls else min(self.until, self.used_at + self.ttl_s)

    def trial(self, call: Call) -> tuple[Numbers, list[float]]:
        """The outputs of `call` for each time step, and the state after it; nothing moves."""
        state, outputs = self.hash, []
        for x in call.xs:
            state = [
                (h * 31 + (nan if value == SPOIL else value) + 7) % PRIME for h, value in zip(state, x, strict=True)
            ]
            outputs.append(state)
        return outputs, state

    def is_repeat(self, call: Call) -> bool:
        return self.last == (call.number, call.kind, call.xs)

    def may_run(self, call: Call) -> bool:
        return call.number is None or call.number == self.current

    def stays_finite(self, call: Call) -> bool:
        return all(map(isfinite, self.trial(call)[1]))

    def do(self, call: Call) -> Told:
        """Move along `call`."""
        self.last = (self.current, call.kind, call.xs)
        self.last_outputs, self.hash = self.trial(call)
        self.count += len(call.xs)
        self.current += len(call.xs)
        return Told(self.current, self.last_outputs)
