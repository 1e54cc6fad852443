"""Decides which sessions there are: who is open, whose turn it is, when a state moves, when a session ends.

It does not know how a model is called, who asks, or what time it is: time is an argument.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from sluice.policy.alarms import Alarms
from sluice.policy.batch import Rows
from sluice.policy.contract import Signature
from sluice.policy.errors import (
    SessionExists,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SluiceError,
    StepMismatch,
)
from sluice.policy.session import ENDED, Event, Phase, Session, Step, ended_error
from sluice.policy.slab import Slab


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


class SessionTable:
    """Every open session, and why those that have ended did.

    A step is offered with `join` and taken out with `leave`; of one session at most one runs at a time, in order of
    arrival. A step of many sessions runs when it is the first in all of them: as it joins all of them at once, two
    steps never wait for each other.
    """

    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        self._open: dict[str, Session] = {}
        # The least recently used first, if that can matter.
        self._by_model: dict[str, OrderedDict[str, Session]] = {}
        self._slabs: dict[tuple[str, int], Slab] = {}
        self._ended: OrderedDict[str, tuple[Phase, float]] = OrderedDict()
        self._alarms: Alarms[Session] = Alarms(lambda when, session: session.alarm_at == when)

    def __len__(self) -> int:
        return len(self._open)

    def counts(self) -> dict[str, int]:
        """How many sessions are open on each model that ever had one."""
        return {model: len(sessions) for model, sessions in self._by_model.items()}

    def open(
        self, id: str, model: str, version: int, signature: Signature, now: float,
        *, ttl_s: float | None = None, rows: Rows | None = None, step: int = 0,
    ) -> tuple[Session, Session | None]:  # fmt: skip
        """Open a session at time step `step`; also the session evicted for it, if any.

        `signature` is the model's step signature; `rows` are explicit initial states by name.

        Raises:
            SessionExists: the id is in use.
            SessionsFull: the model has as many sessions as it may have, and none may be evicted.
        Nothing has changed then.
        """
        if id in self._open:
            raise SessionExists(
                f"Session {id!r} is open already, on model {self._open[id].model!r}. Choose another id, or close it. "
                'An open with if_exists "return" goes on with it, with "restart" it begins again.'
            )
        evicted = self._make_room(model, now)
        slab = self._slab(model, version, signature)
        session = Session(id, slab, slab.occupy(rows or {}), now, ttl_s or self.options.idle_s, step)
        self._open[id] = session
        self._by_model[model][id] = session
        self._ended.pop(id, None)
        self._look_at(session, self.expires_at(session))
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
        raise SessionNotFound(
            f"There is no session {id!r}. Open one with POST /v1/models/{{model}}/sessions, or over gRPC with Open."
        )

    def of_model(self, model: str, after: str = "", limit: int = 100) -> list[Session]:
        """Up to `limit` open sessions of `model` in order of id, beginning behind `after`."""
        ids = heapq.nsmallest(limit, (id for id in self._by_model.get(model, ()) if id > after))
        return [self._open[id] for id in ids]

    def expires_at(self, session: Session) -> float:
        """When it ends unless it is used before; while a step waits or runs only the total life counts."""
        until = session.opened_at + self.options.life_s
        return min(until, session.last_used_at + session.ttl_s) if session.phase is Phase.IDLE else until

    def renew(self, session: Session, now: float, ttl_s: float | None) -> None:
        """Count as used now, and change how long it may be idle if `ttl_s` (seconds) is given."""
        session.ttl_s = ttl_s or session.ttl_s
        self._use(session, now)
        self._look_in_time(session)

    def join(self, step: Step, now: float) -> None:
        """Queue a step behind those of its sessions that have come before; a session that cannot take it refuses it."""
        step.began_at = step.queued_at = now
        for row, session in step.living():
            if error := self._unable(session):
                step.refuse(row, error)
                continue
            if session.steps:
                step.blocked += 1
            session.steps += (step,)
            session.advance(Event.STEP)
            self._use(session, now)

    def turn(self, step: Step) -> list[Session]:
        """It is a step's turn in all its sessions: which of them need not run it, because its number says so.

        They have their answer, the one that it repeats or an error, and wait for `leave`.
        """
        spared: list[Session] = []
        if step.numbers is None:
            return spared
        for row, session in step.living():
            number = step.numbers[row]
            if number in (-1, session.step):
                continue
            if number == session.last_start and step.fingerprints()[row] == session.last_call:
                step.replay(row, session)
            else:
                step.refuse(row, _mismatch(session, number))
            spared.append(session)
        return spared

    def leave(self, step: Step, session: Session, now: float) -> Step | None:
        """Take a step out of a session; the next one, if it is that one's turn in all its sessions."""
        steps = session.steps
        was_first = steps[0] is step
        if len(steps) > 1:
            session.steps = steps[1:] if was_first else tuple(each for each in steps if each is not step)
            return session.steps[0].one_less() if was_first else None
        session.steps = ()
        session.advance(Event.REST)
        self._use(session, now)
        self._look_in_time(session)
        return None

    def move(self, step: Step, row: int, session: Session, call: bytes, outputs: Rows | None) -> None:
        """A session has made a step: count it, and remember the call by its fingerprint.

        `outputs`: those that do not lie in the slab.
        """
        session.last_start = session.step
        session.last_call = call
        session.last_outputs = outputs
        session.step += step.length
        step.steps[row] = session.step

    def replace(self, session: Session, rows: Rows, step: int, now: float) -> None:
        """Give a session that rests another state, state name → row, and time step; its last call is forgotten."""
        session.slab.write(session.slot, rows)
        session.step = step
        session.forget_last()
        self._use(session, now)

    def end(self, session: Session, event: Event, now: float) -> tuple[Step, ...]:
        """End a session; its steps, waiting or running, in order, which its state will not wait for."""
        session.advance(event)
        del self._open[session.id]
        del self._by_model[session.model][session.id]
        session.slab.vacate(session.slot)
        session.alarm_at = 0.0
        self._ended[session.id] = (session.phase, now)
        self._forget(now)
        steps, session.steps = session.steps, ()
        return steps

    def overdue(self, now: float) -> Iterator[Session]:
        """The sessions whose idle time or total life has run out. What ended too long ago is forgotten."""
        self._forget(now)
        for session in self._alarms.due(now):
            if (when := self.expires_at(session)) <= now:
                yield session
            else:  # it was used since, or is being used
                self._look_at(session, when)

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
                "to expire, or raise sessions_per_model.",
                limit=limit,
            )
        self.end(longest_idle, Event.EVICT, now)
        return longest_idle

    def _slab(self, model: str, version: int, signature: Signature) -> Slab:
        slab = self._slabs.get((model, version))
        if slab is None:
            slab = self._slabs[model, version] = Slab(model, version, signature, self.options.per_model)
        return slab

    def _unable(self, session: Session) -> SluiceError | None:
        """Why a session cannot take one more step."""
        limit = self.options.queue_steps
        if session.phase in ENDED:
            return ended_error(session.id, session.phase)
        if len(session.steps) >= limit:
            return SessionQueueFull(
                f"Session {session.id!r} has {limit} steps waiting, which is as many as it may have. "
                "Await answers before sending more, or raise session_queue_steps.",
                limit=limit,
            )
        return None

    def _use(self, session: Session, now: float) -> None:
        session.last_used_at = now
        if self.options.evict:
            self._by_model[session.model].move_to_end(session.id)

    def _look_in_time(self, session: Session) -> None:
        """See to it that its alarm goes off when it expires, or before; mostly one is set already."""
        if session.last_used_at + session.ttl_s < session.alarm_at:
            self._look_at(session, self.expires_at(session))

    def _look_at(self, session: Session, when: float) -> None:
        session.alarm_at = when
        self._alarms.set(when, session)

    def _forget(self, now: float) -> None:
        while len(self._ended) > self.options.remembered or (
            self._ended and next(iter(self._ended.values()))[1] + self.options.remembered_s <= now
        ):
            self._ended.popitem(last=False)


def _mismatch(session: Session, number: int) -> StepMismatch:
    return StepMismatch(
        f"Session {session.id!r} is at time step {session.step}; a call numbered {number} came. Send "
        f"{session.step} next; only the last answered call can be repeated, with the same inputs.",
        current=session.step,
    )
