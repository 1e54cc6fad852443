"""Decides what one session is, what may happen to it, and what a step of it is.

It does not know the other sessions, how a model is called, or what time it is: time is an argument.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Lane, Rows, Ticket, rows_like
from sluice.policy.contract import Signature
from sluice.policy.errors import (
    SessionClosed,
    SessionEnded,
    SessionEvicted,
    SessionExpired,
    SessionVersionGone,
    SluiceError,
)
from sluice.policy.slab import Slab

Array = NDArray[Any]

_SHORT = 64  # bytes of inputs that are remembered as they are; of longer ones a digest is


class Phase(StrEnum):
    IDLE = "idle"
    STEPPING = "stepping"
    CLOSED = "closed"
    EXPIRED = "expired"
    EVICTED = "evicted"
    VERSION_GONE = "version_gone"


class Event(StrEnum):
    STEP = "step"  # a step arrives
    REST = "rest"  # the last waiting or running step is settled
    CLOSE = "close"
    EXPIRE = "expire"
    EVICT = "evict"
    RETIRE = "retire"  # its model version is no longer served


# The life of a session, phase by event. What is not here is refused, and changes nothing.
LIFE_CYCLE: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.IDLE: {
        Event.STEP: Phase.STEPPING,
        Event.CLOSE: Phase.CLOSED,
        Event.EXPIRE: Phase.EXPIRED,
        Event.EVICT: Phase.EVICTED,
        Event.RETIRE: Phase.VERSION_GONE,
    },
    Phase.STEPPING: {
        Event.STEP: Phase.STEPPING,
        Event.REST: Phase.IDLE,
        Event.CLOSE: Phase.CLOSED,
        Event.EXPIRE: Phase.EXPIRED,
        Event.RETIRE: Phase.VERSION_GONE,
    },
    Phase.CLOSED: {},
    Phase.EXPIRED: {},
    Phase.EVICTED: {},
    Phase.VERSION_GONE: {},
}

# How sessions end, and what their clients are told.
ENDED: Mapping[Phase, tuple[type[SessionEnded], str]] = {
    Phase.CLOSED: (SessionClosed, "was closed"),
    Phase.EXPIRED: (SessionExpired, "was idle or open for too long and has expired"),
    Phase.EVICTED: (SessionEvicted, "was idle for longest when room was needed, and was evicted"),
    Phase.VERSION_GONE: (SessionVersionGone, "belonged to a model version that is no longer served"),
}


class Session:
    """One client's recurrent state on one model version. Times are the caller's monotonic seconds.

    step: time steps done so far. last_start, last_call, last_outputs: the last answered call, so that its repeat gets
    the same answer without running again: the time step before it, its fingerprint, and its outputs where they do not
    lie in the slab.
    """

    __slots__ = (
        "alarm_at",
        "id",
        "last_call",
        "last_outputs",
        "last_start",
        "last_used_at",
        "opened_at",
        "phase",
        "slab",
        "slot",
        "step",
        "steps",
        "ttl_s",
    )

    def __init__(self, id: str, slab: Slab, slot: int, now: float, ttl_s: float, step: int = 0) -> None:
        self.id = id
        self.slab = slab
        self.slot = slot
        self.phase = Phase.IDLE
        self.step = step
        self.steps: tuple[Step, ...] = ()  # waiting and running, in order of arrival
        self.last_start = -1
        self.last_call = b""
        self.last_outputs: Rows | None = None
        self.opened_at = self.last_used_at = now
        self.ttl_s = ttl_s
        self.alarm_at = 0.0  # when the table looks at it again; 0: it has ended

    @property
    def model(self) -> str:
        return self.slab.model

    def advance(self, event: Event) -> None:
        """Move along the life cycle.

        Raises:
            ValueError: the event cannot happen in this phase; nothing has changed.
        """
        try:
            self.phase = LIFE_CYCLE[self.phase][event]
        except KeyError:
            raise ValueError(f"session {self.id!r} is {self.phase}: {event} cannot happen") from None

    def forget_last(self) -> None:
        """From now on no call is a repeat."""
        self.last_start, self.last_call, self.last_outputs = -1, b"", None

    def last_answer(self) -> Rows:
        """The outputs of the last answered call, output name → row; copies."""
        if self.last_outputs is not None:
            return self.last_outputs
        return {name: np.array(array[self.slot]) for name, array in (self.slab.answers or {}).items()}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a step or a scan gave, by row: one for each session that was named.

    outputs: output name → `[rows, ...]`, zeros where a row has an error. steps: the time steps that each session has
    done with it, -1 where a row has an error. replayed: nothing ran, the answers come from memory.
    """

    outputs: Rows
    steps: list[int]
    errors: Mapping[int, SluiceError]
    replayed: bool = False


class Step(Ticket):
    """One time step of one session or of many, each named once, or a scan of one session: a row for each session.

    It waits until it is its turn in every one of its sessions. A row whose answer is known before it runs, or which
    will get an error, takes part in the batch as filler.

    sessions: by row, all on the same model version; None once the row needs nothing more. numbers: by row, -1 where
    a row is not numbered; None: none is. length: time steps. blocked: in how many sessions it is not yet its turn.
    """

    __slots__ = ("blocked", "errors", "length", "numbers", "replays", "sessions", "signature", "steps")

    def __init__(
        self,
        sessions: Sequence[Session | None],
        signature: Signature,
        inputs: Rows,
        deadline: float,
        *,
        slab: Slab,
        length: int = 1,
        time_bound: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        lane = Lane(slab.model, slab.version, signature.name, rows_like(inputs), time_bound=time_bound)
        super().__init__(lane, inputs, len(sessions), deadline)
        self.sessions = list(sessions)
        self.signature = signature
        self.length = length
        self.numbers = numbers
        self.errors: dict[int, SluiceError] = {}
        self.replays: dict[int, Rows] = {}
        self.steps = [-1] * len(sessions)
        self.blocked = 0

    def living(self) -> list[tuple[int, Session]]:
        """The rows that are still to be answered, with their sessions."""
        return [(row, session) for row, session in enumerate(self.sessions) if session is not None]

    def one_less(self) -> "Step | None":
        """It is its turn in one more session; itself, if that was the last one it waited for."""
        self.blocked -= 1
        return None if self.blocked else self

    def refuse(self, row: int, error: SluiceError) -> None:
        """Answer one row with an error."""
        self.sessions[row] = None
        self.errors[row] = error

    def replay(self, row: int, session: Session) -> None:
        """Answer one row from its session's memory."""
        self.sessions[row] = None
        self.replays[row] = session.last_answer()
        self.steps[row] = session.step

    def fingerprints(self) -> list[bytes]:
        """By row, what tells this call from another one with the same number: its kind and inputs."""
        if len(self.inputs) == 1 and self.length == 1:
            (array,) = self.inputs.values()
            width = array.nbytes // self.rows
            if array.ndim <= 2 and not array.dtype.hasobject and 0 < width <= _SHORT:
                data = array.tobytes()
                return [data[start : start + width] for start in range(0, len(data), width)]
        return [self._digest(row) for row in range(self.rows)]

    def _digest(self, row: int) -> bytes:
        seen = blake2b(self.signature.name.encode(), digest_size=16)
        for name, array in self.inputs.items():
            seen.update(f"\0{name}{array.shape[1:]}".encode())
            own = array[row, ...]  # an array also where a row is a single text
            seen.update(repr(own.tolist()).encode() if array.dtype.hasobject else own.tobytes())
        return seen.digest()

    def outcome_with(self, outputs: Rows) -> Answers | SluiceError:
        """What the caller gets: `outputs` are the ticket's rows of a batch, or nothing if none ran."""
        if self.rows == 1 and self.errors:
            return self.errors[0]
        replayed = not outputs and bool(self.replays)
        if self.errors or self.replays:
            outputs = self._patched(outputs)
        return Answers(outputs, self.steps, self.errors, replayed)

    def _patched(self, outputs: Rows) -> dict[str, Array]:
        """Rows that ran as filler hold what is not the caller's: put remembered answers there, or zeros."""
        names = outputs or next(iter(self.replays.values()), {})
        return {name: self._column(name, outputs.get(name)) for name in names}

    def _column(self, name: str, ran: Array | None) -> Array:
        kept = {row: np.asarray(rows[name]) for row, rows in self.replays.items()}
        like = next(iter(kept.values())) if ran is None else ran[0, ...]
        column = np.zeros((self.rows, *like.shape), like.dtype)
        if ran is not None:
            own = [row for row in range(self.rows) if row not in self.errors and row not in kept]
            column[own] = ran[own]
        for row, value in kept.items():
            column[row, ...] = value
        return column


def ended_error(id: str, phase: Phase) -> SessionEnded:
    """The error that tells a client why its session has ended."""
    error, reason = ENDED[phase]
    return error(f"Session {id!r} {reason}. Open a new one.")
