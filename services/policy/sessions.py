"""Decides what may happen to a session: who is open, whose turn it is, when its state moves, when it ends.

It does not know how a model is called, who asks, or what time it is: time is an argument.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.policy.alarms import Alarms
from services.policy.batching import Lane, Rows, Ticket, rows_like
from services.policy.contract import Signature, State, numpy_dtype
from services.policy.errors import (
    SessionClosed,
    SessionEnded,
    SessionEvicted,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SessionVersionGone,
    StepMismatch,
)
from services.policy.tensors import initial_row

Array = NDArray[Any]


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

_ENDED: Mapping[Phase, tuple[type[SessionEnded], str]] = {
    Phase.CLOSED: (SessionClosed, "was closed"),
    Phase.EXPIRED: (SessionExpired, "was idle or open for too long and has expired"),
    Phase.EVICTED: (SessionEvicted, "was idle for longest when room was needed, and was evicted"),
    Phase.VERSION_GONE: (SessionVersionGone, "belonged to a model version that is no longer served"),
}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """The bounds of sessions.

    idle_s: a session that nobody uses for this long expires, in seconds; a session's own `ttl_s` goes first.
    life_s: no session lives longer than this, in seconds, used or not.
    per_model: sessions open at one time on one model.
    evict: when a model is full, end its longest idle session instead of refusing the new one.
    queue_steps: steps of one session that may wait or run; beyond it a step is refused at once.
    remembered, remembered_s: how many ended sessions' reasons are remembered, and for how long, in seconds.
    """

    idle_s: float = 600.0
    life_s: float = 86_400.0
    per_model: int = 10_000
    evict: bool = False
    queue_steps: int = 16
    remembered: int = 100_000
    remembered_s: float = 3_600.0


class Slab:
    """The states of all sessions on one model version: one array `[slots, ...]` per state tensor, and who is free."""

    def __init__(self, model: str, version: int, states: Sequence[State], slots: int) -> None:
        self.model = model
        self.version = version
        self.states = tuple(states)
        # Zeros are mapped, not written: memory is used only by slots that a session has used.
        self.arrays = {state.name: np.zeros((slots, *state.shape), numpy_dtype(state.dtype)) for state in states}
        self.row_bytes = sum(array[:1].nbytes for array in self.arrays.values())
        self._initial = {state.name: initial_row(state.initial, state.shape, state.dtype) for state in states}
        self._free = list(range(slots - 1, -1, -1))

    def occupy(self, rows: Rows) -> int:
        """Take a slot and write its first state: `rows` by state name, the contract's initial values for the rest."""
        slot = self._free.pop()
        for name, array in self.arrays.items():
            array[slot] = rows.get(name, self._initial[name])
        return slot

    def vacate(self, slot: int) -> None:
        self._free.append(slot)

    def gather(self, states: Sequence[State], slots: Sequence[int]) -> dict[str, Array]:
        """The states of `slots` as a signature's inputs, input name → `[len(slots), ...]`."""
        return {state.input: self.arrays[state.name][slots] for state in states}

    def scatter(self, states: Sequence[State], slots: Sequence[int], rows: Sequence[int], outputs: Rows) -> None:
        """Write rows `rows` of a signature's outputs as the states of `slots`."""
        for state in states:
            self.arrays[state.name][slots] = outputs[state.output][rows]


def finite_rows(states: Sequence[State], outputs: Rows) -> Array:
    """Which rows of a batch's new states hold neither NaN nor infinity: bool `[batch]`."""
    news = [outputs[state.output] for state in states]
    checks = [np.isfinite(new.reshape(len(new), -1)).all(axis=1) for new in news if new.dtype.kind in "fcV"]
    finite: Array = np.logical_and.reduce([np.ones(len(news[0]), bool), *checks])
    return finite


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step or a scan gave: output name → row, and the time steps that the session has done with it."""

    outputs: Rows
    step: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The last answered call of a session, so that its repeat gets the same answer without running again."""

    start: int
    digest: bytes
    answer: Answer


class Step(Ticket):
    """A step or a scan of one session: one row, `length` time steps, numbered or not."""

    __slots__ = ("digest", "length", "number", "session", "signature")

    def __init__(
        self,
        session: "Session",
        signature: Signature,
        inputs: Rows,
        deadline: float,
        *,
        length: int = 1,
        time_bound: int | None = None,
        number: int | None = None,
    ) -> None:
        slab = session.slab
        lane = Lane(slab.model, slab.version, signature.name, rows_like(inputs), time_bound=time_bound)
        super().__init__(lane, inputs, 1, deadline)
        self.session = session
        self.signature = signature
        self.length = length
        self.number = number
        self.digest = digest(signature.name, inputs)


def digest(signature: str, inputs: Rows) -> bytes:
    """A fingerprint of a call, so that a repeat can be told from another call with the same number."""
    seen = blake2b(signature.encode(), digest_size=16)
    for name, array in inputs.items():
        seen.update(f"\0{name}{array.shape}".encode())
        seen.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return seen.digest()


class Session:
    """One client's recurrent state on one model version. Times are the caller's monotonic seconds."""

    __slots__ = (
        "alarm_at",
        "id",
        "last",
        "last_used_at",
        "opened_at",
        "phase",
        "slab",
        "slot",
        "step",
        "steps",
        "ttl_s",
        "until",
    )

    def __init__(self, id: str, slab: Slab, slot: int, now: float, ttl_s: float, until: float) -> None:
        self.id = id
        self.slab = slab
        self.slot = slot
        self.phase = Phase.IDLE
        self.step = 0
        self.steps: list[Step] = []  # waiting and running, in order of arrival
        self.last: _Remembered | None = None
        self.opened_at = self.last_used_at = now
        self.ttl_s = ttl_s
        self.until = until
        self.alarm_at = 0.0  # when the table looks at it again; 0: it has ended

    @property
    def model(self) -> str:
        return self.slab.model

    @property
    def expires_at(self) -> float:
        """When it ends unless it is used before; while a step waits or runs only the total life counts."""
        return min(self.until, self.last_used_at + self.ttl_s) if self.phase is Phase.IDLE else self.until

    def advance(self, event: Event) -> None:
        """Move along the life cycle.

        Raises:
            ValueError: the event cannot happen in this phase; nothing has changed.
        """
        following = LIFE_CYCLE[self.phase].get(event)
        if following is None:
            raise ValueError(f"session {self.id!r} is {self.phase}: {event} cannot happen")
        self.phase = following


class SessionTable:
    """Every open session, and why those that have ended did.

    A step is offered with `join`. `turn` says which of a session's steps may run now: at most one at a time, in order
    of arrival. `move` is the only place where a state changes, and `end` the only one where a session leaves.
    """

    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        self._open: dict[str, Session] = {}
        self._by_model: dict[str, OrderedDict[str, Session]] = {}  # the least recently used first
        self._slabs: dict[tuple[str, int], Slab] = {}
        self._ended: OrderedDict[str, tuple[Phase, float]] = OrderedDict()
        self._alarms: Alarms[Session] = Alarms(lambda when, session: session.alarm_at == when)

    def __len__(self) -> int:
        return len(self._open)

    def counts(self) -> dict[str, int]:
        """How many sessions are open on each model that ever had one."""
        return {model: len(sessions) for model, sessions in self._by_model.items()}

    def open(
        self, id: str, model: str, version: int, states: Sequence[State], now: float,
        *, ttl_s: float | None = None, rows: Rows | None = None,
    ) -> tuple[Session, Session | None]:  # fmt: skip
        """Open a session at time step 0; `rows` are explicit initial states. Also the session evicted for it, if any.

        Raises:
            SessionExists: the id is in use.
            SessionsFull: the model has as many sessions as it may have, and none may be evicted.
        Nothing has changed then.
        """
        if id in self._open:
            raise SessionExists(
                f"Session {id!r} is open already, on model {self._open[id].model!r}. Choose another id, or close it."
            )
        evicted = self._make_room(model, now)
        slab = self._slab(model, version, states)
        slot = slab.occupy(rows or {})
        session = Session(id, slab, slot, now, ttl_s or self.options.idle_s, now + self.options.life_s)
        self._open[id] = session
        self._by_model[model][id] = session
        self._ended.pop(id, None)
        self._look_at(session, session.expires_at)
        return session, evicted

    def find(self, id: str) -> Session | None:
        """The open session of this id, if there is one."""
        return self._open.get(id)

    def get(self, id: str) -> Session:
        """The open session of this id.

        Raises:
            SessionNotFound: never heard of it.
            SessionEnded: it has ended, and this is why.
        """
        session = self._open.get(id)
        if session is not None:
            return session
        if id in self._ended:
            raise ended_error(id, self._ended[id][0])
        raise SessionNotFound(f"There is no session {id!r}. Open one with POST /v1/models/{{model}}/sessions.")

    def of_model(self, model: str, after: str = "", limit: int = 100) -> list[Session]:
        """Up to `limit` open sessions of `model` in order of id, beginning behind `after`."""
        ids = heapq.nsmallest(limit, (id for id in self._by_model.get(model, ()) if id > after))
        return [self._open[id] for id in ids]

    def renew(self, session: Session, now: float, ttl_s: float | None) -> None:
        """Count as used now, and change how long it may be idle if `ttl_s` (seconds) is given."""
        session.ttl_s = ttl_s or session.ttl_s
        self._use(session, now)
        self._look_in_time(session)

    def join(self, step: Step, now: float) -> None:
        """Queue a step behind those of its session that have come before.

        Raises:
            SessionEnded: the session has ended since it was looked up, and this is why.
            SessionQueueFull: too many wait already.
        Nothing has changed then.
        """
        session, limit = step.session, self.options.queue_steps
        if session.phase in _ENDED:
            raise ended_error(session.id, session.phase)
        if len(session.steps) >= limit:
            raise SessionQueueFull(
                f"Session {session.id!r} has {limit} steps waiting, which is as many as it may have. "
                "Await answers before sending more.",
                limit=limit,
            )
        session.advance(Event.STEP)
        session.steps.append(step)
        step.queued_at = now
        self._use(session, now)

    def turn(self, step: Step) -> Answer | None:
        """Whether the first step of a session may run: None if so, or the remembered answer that it repeats.

        Raises:
            StepMismatch: its number is neither the current one nor a repeat of the last answered call.
        """
        session, last = step.session, step.session.last
        if step.number is None or step.number == session.step:
            return None
        if last is not None and step.number == last.start and step.digest == last.digest:
            return Answer(last.answer.outputs, last.answer.step, replayed=True)
        raise StepMismatch(
            f"Session {session.id!r} is at time step {session.step}; a call numbered {step.number} came. Send "
            f"{session.step} next; only the last answered call can be repeated, with the same inputs.",
            current=session.step,
        )

    def leave(self, step: Step, now: float) -> Step | None:
        """Take out a settled step; the session's next one, if that has become the first."""
        session = step.session
        was_first = session.steps[0] is step
        session.steps.remove(step)
        if not session.steps:
            self._use(session, now)
            session.advance(Event.REST)
            self._look_in_time(session)
            return None
        return session.steps[0] if was_first else None

    def move(self, steps: Sequence[Step], rows: Sequence[int], outputs: Rows) -> None:
        """Write new states, row `rows[i]` of a batch's `outputs` for `steps[i]`, and count their time steps."""
        if steps:
            slots = [step.session.slot for step in steps]
            steps[0].session.slab.scatter(steps[0].signature.states, slots, rows, outputs)
        for step in steps:
            step.session.step += step.length

    def remember(self, step: Step, answer: Answer) -> None:
        """Keep the answer of a call that has moved the state, for its repeat."""
        step.session.last = _Remembered(answer.step - step.length, step.digest, answer)

    def end(self, session: Session, event: Event, now: float) -> list[Step]:
        """End a session; its steps, waiting or running, which its state will not wait for."""
        session.advance(event)
        del self._open[session.id]
        del self._by_model[session.model][session.id]
        session.slab.vacate(session.slot)
        session.alarm_at = 0.0
        self._ended[session.id] = (session.phase, now)
        self._forget(now)
        steps, session.steps = session.steps, []
        return steps

    def overdue(self, now: float) -> Iterator[Session]:
        """The sessions whose idle time or total life has run out. What ended too long ago is forgotten."""
        self._forget(now)
        for session in self._alarms.due(now):
            if session.expires_at <= now:
                yield session
            else:  # it was used since, or is being used
                self._look_at(session, session.expires_at)

    def retired(self, model: str, version: int) -> list[Session]:
        """The sessions of a model version that is no longer served; its states are let go."""
        self._slabs.pop((model, version), None)
        return [session for session in self._by_model.get(model, {}).values() if session.slab.version == version]

    def next_wakeup(self) -> float:
        """When the next session may expire; `inf`: there is none."""
        return self._alarms.next_wakeup()

    def _make_room(self, model: str, now: float) -> Session | None:
        limit = self.options.per_model
        sessions = self._by_model.setdefault(model, OrderedDict())
        if len(sessions) < limit:
            return None
        idle = (session for session in sessions.values() if session.phase is Phase.IDLE)
        longest_idle = next(idle, None) if self.options.evict else None
        if longest_idle is None:
            raise SessionsFull(
                f"Model {model!r} has {limit} open sessions, as many as it may have. Close some, wait for some "
                "to expire, or raise the limit.",
                limit=limit,
            )
        self.end(longest_idle, Event.EVICT, now)
        return longest_idle

    def _slab(self, model: str, version: int, states: Sequence[State]) -> Slab:
        slab = self._slabs.get((model, version))
        if slab is None:
            slab = self._slabs[model, version] = Slab(model, version, states, self.options.per_model)
        return slab

    def _use(self, session: Session, now: float) -> None:
        session.last_used_at = now
        self._by_model[session.model].move_to_end(session.id)

    def _look_in_time(self, session: Session) -> None:
        """See to it that its alarm goes off when it expires, or before; mostly one is set already."""
        if session.expires_at < session.alarm_at:
            self._look_at(session, session.expires_at)

    def _look_at(self, session: Session, when: float) -> None:
        session.alarm_at = when
        self._alarms.set(when, session)

    def _forget(self, now: float) -> None:
        while len(self._ended) > self.options.remembered or (
            self._ended and next(iter(self._ended.values()))[1] + self.options.remembered_s <= now
        ):
            self._ended.popitem(last=False)


def ended_error(id: str, phase: Phase) -> SessionEnded:
    """The error that tells a client why its session has ended."""
    error, reason = _ENDED[phase]
    return error(f"Session {id!r} {reason}. Open a new one.")
