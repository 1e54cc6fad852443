"""What a session is, said the slow way: one list of calls, done one at a time in plain Python numbers."""

from dataclasses import dataclass, field
from math import isfinite, nan

from services.policy.sessions import Session, Step

from .puppet import PRIME, SPOIL


@dataclass
class Call:
    """A step that was taken on. `xs` holds one pair of numbers for each time step."""

    kind: str
    xs: list[list[float]]
    number: int | None
    step: Step
    cancelled: bool = False


@dataclass
class Diary:
    """One session as its client could have kept it on paper."""

    session: Session
    hash: list[float]
    ttl_s: float
    until: float
    used_at: float
    version: int
    use: int = 0  # the order in which sessions were used
    count: int = 0
    current: int = 0
    calls: list[Call] = field(default_factory=list)
    last: tuple[int, str, list[list[float]]] | None = None
    last_outputs: list[list[float]] = field(default_factory=list)

    @property
    def expires_at(self) -> float:
        return self.until if self.calls else min(self.until, self.used_at + self.ttl_s)

    def trial(self, call: Call) -> tuple[list[list[float]], list[float]]:
        """The outputs of `call` for each time step, and the state after it; nothing moves."""
        state, outputs = self.hash, []
        for x in call.xs:
            state = [
                (h * 31 + (nan if value == SPOIL else value) + 7) % PRIME for h, value in zip(state, x, strict=True)
            ]
            outputs.append(state)
        return outputs, state

    def is_repeat(self, call: Call) -> bool:
        return (
            call.number is not None and call.number != self.current and self.last == (call.number, call.kind, call.xs)
        )

    def may_run(self, call: Call) -> bool:
        return call.number is None or call.number == self.current

    def stays_finite(self, call: Call) -> bool:
        return all(map(isfinite, self.trial(call)[1]))

    def do(self, call: Call) -> None:
        """Move along `call`."""
        self.last = (self.current, call.kind, call.xs)
        self.last_outputs, self.hash = self.trial(call)
        self.count += len(call.xs)
        self.current += len(call.xs)
