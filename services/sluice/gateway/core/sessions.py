"""Sessions: opened, stepped, copied, saved and closed, once for all transports.

It checks values against the contract and hands steps to the engine; it does not know HTTP, gRPC or JSON.
"""

import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.engine import Engine
from sluice.gateway.core.pending import Pending, Terms, awaited, in_task
from sluice.gateway.core.predict import check_wanted
from sluice.gateway.core.resolve import ModelSpec, Resolver
from sluice.gateway.core.states import compatible_rows, read_states
from sluice.gateway.settings import Settings
from sluice.gateway.upstream.catalog import Catalog
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.columnar import divided
from sluice.policy.contract import Signature
from sluice.policy.errors import (
    BadRequest,
    BatchTooLarge,
    Draining,
    EmptyInput,
    ModelNotFound,
    SessionConflict,
    SessionExists,
    SessionLost,
    SessionNotFound,
    ShapeMismatch,
    SluiceError,
    StateIncompatible,
    UnsupportedByModel,
    VersionNotFound,
)
from sluice.policy.session import Event, Session, Step
from sluice.policy.slab import Slab
from sluice.policy.tensors import bound_for, counted, padded, read_inputs, read_row, time_steps
from sluice.wire.envelope import SavedState, open_envelope, seal

Array = NDArray[Any]
IfExists = Literal["error", "return", "restart"]

SESSION_ID = r"[A-Za-z0-9._~-]{1,128}"
ID_IN_WORDS = "1 to 128 of the characters A-Z a-z 0-9 . _ ~ -"
_ID_PREFIX = "s-"
_MADE_ID = re.compile(r"s-([0-9a-f]+)-[0-9a-f]{16}")  # what `_new_id` gives, so that a client's own `s-7` is its own
_STEP_HINT = "A step is one time step and has no batch axis; a scan takes several time steps."
_SCAN_HINT = "A scan is one session's time steps and has no batch axis."


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as clients see it; times are RFC 3339 in UTC, `state_bytes` what one state takes."""

    session: str
    model: str
    version: str
    step: int
    waiting: int
    opened_at: str
    last_used_at: str
    expires_at: str
    state_bytes: int


class Sessions:
    """The sessions of one gateway.

    Ids carry `generation`, made at boot, so that an id of an earlier run is told from a wrong one.
    """

    def __init__(self, settings: Settings, catalog: Catalog, engine: Engine, resolver: Resolver) -> None:
        self.draining = False  # then none is opened any more
        self.generation = f"{time.time_ns() // 1_000_000:x}"
        self._settings = settings
        self._catalog = catalog
        self._engine = engine
        self._table = engine.scheduler.sessions
        self._resolver = resolver
        self._wall_offset_s = time.time() - engine.now()

    async def open(
        self,
        spec: ModelSpec,
        deadline: float,
        *,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
        if_exists: IfExists = "error",
    ) -> tuple[SessionView, bool]:
        """Open a session at time step 0; whether it was opened now: with `if_exists="return"` it may be open already.

        Raises:
            Draining, ModelNotFound, VersionNotFound, UnsupportedByModel, SessionExists, SessionsFull, BadRequest,
            DeadlineExceeded, and the errors of wrong values in `state`.
        """
        if spec.label is not None and spec.version is not None:
            raise BadRequest("A session is opened on a version or on a label; both came.")
        served = await self._resolver.find(spec, deadline)
        signature = served.stepping("step")
        self._check_ttl(ttl_s)
        rows = read_states(state or {}, signature.states)
        existing = self._table.find(id) if id and if_exists != "error" else None
        if existing is not None:
            named = spec.version is not None or spec.label is not None
            self._check_same(existing, spec.name, served.version if named else None)
            if if_exists == "return":
                return self.view(existing), False
        self._check_not_draining()
        if existing is not None:
            self._end(existing)
        return self.view(self._open(served, id, ttl_s=ttl_s, rows=rows)), True

    def fork(self, id: str, new_id: str | None = None) -> SessionView:
        """Open a session with the state and time step that another one has now; its steps still to run do not count.

        Raises:
            Draining, SessionExists, SessionsFull, and what `get` raises.
        """
        parent = self.get(id)
        self._check_not_draining()
        served = self._catalog.get(parent.model, parent.slab.version)
        rows = parent.slab.read(parent.slot)
        return self.view(self._open(served, new_id, ttl_s=parent.ttl_s, rows=rows, step=parent.step))

    def save(self, id: str) -> bytes:
        """A session's state and time step now, as an envelope that `restore` takes; raises what `get` raises."""
        session = self.get(id)
        slab = session.slab
        return seal(SavedState(slab.model, slab.version, session.step, slab.read(session.slot)))

    async def restore(self, id: str, envelope: bytes, deadline: float) -> tuple[SessionView, bool]:
        """Give a session a saved state, and open it if it is not open; whether it was opened.

        Raises:
            BadRequest: the envelope is damaged.
            StateIncompatible: it belongs to another model or version than the session, or than what is served.
            SessionConflict: steps of the session wait or run.
            Draining, SessionsFull, and what `get` raises of sessions that have ended.
        """
        try:
            saved = open_envelope(envelope)
        except ValueError as error:
            raise BadRequest(f"The saved state cannot be read: {error}. Send it as it was given, unchanged.") from None
        served = await self._saved_on(saved, deadline)
        rows = compatible_rows(saved, served)
        session = self._table.find(id)
        if session is None:
            self._check_not_draining()
            return self.view(self._open(served, id, rows=rows, step=saved.step)), True
        if (session.model, session.slab.version) != (saved.model, saved.version):
            raise StateIncompatible(
                f"The saved state is of model {saved.model!r} version {saved.version}; session {id!r} is on model "
                f"{session.model!r} version {session.slab.version}."
            )
        if session.steps:
            raise SessionConflict(
                f"Session {id!r} has {len(session.steps)} steps that wait or run. Await their answers first."
            )
        self._table.replace(session, rows, saved.step, self._engine.now())
        self._engine.changed()
        return self.view(session), False

    def get(self, id: str) -> Session:
        """The open session of this id.

        Raises:
            SessionNotFound, SessionLost, SessionClosed, SessionExpired, SessionEvicted, SessionVersionGone.
        """
        try:
            return self._table.get(id)
        except SessionNotFound:
            made = _MADE_ID.fullmatch(id)
            if made is not None and made[1] != self.generation:
                raise SessionLost(
                    f"Session {id!r} was opened on an earlier run of this gateway; its state is lost. Open a new one."
                ) from None
            raise

    def model_of(self, id: str) -> str:
        """The model of an open session; empty if there is none of this id."""
        session = self._table.find(id)
        return session.model if session else ""

    def view(self, session: Session) -> SessionView:
        return SessionView(
            session.id,
            session.model,
            str(session.slab.version),
            session.step,
            len(session.steps),
            self._rfc3339(session.opened_at),
            self._rfc3339(session.last_used_at),
            self._rfc3339(self._table.expires_at(session)),
            session.slab.row_bytes,
        )

    def list(self, model: str, after: str, limit: int) -> tuple[Sequence[SessionView], str | None]:
        """Up to `limit` sessions of a model in order of id, and where to go on if there are more."""
        found = self._table.of_model(model, after, limit + 1)
        following = found[limit - 1].id if len(found) > limit else None
        return [self.view(session) for session in found[:limit]], following

    def renew(self, id: str, ttl_s: float | None) -> SessionView:
        """Count a session as used now; `ttl_s` changes how long it may be idle, in seconds."""
        self._check_ttl(ttl_s)
        session = self.get(id)
        self._table.renew(session, self._engine.now(), ttl_s)
        self._engine.changed()
        return self.view(session)

    def close(self, id: str) -> None:
        """Close a session; its waiting and running steps are told."""
        self._end(self.get(id))

    def step(
        self, id: str, value: Any, number: int | None, wanted: Sequence[str] | None, terms: Terms, pending: Pending
    ) -> None:
        """Run one time step of a session; `value` holds a row for each input, without batch axis.

        Its outcome is `Answers` with all outputs; `wanted` is only checked.

        Raises:
            What `get` and `read_inputs` raise, and BadRequest: it is refused.
        """
        session, served, signature = self._stepping(id, "step", wanted)
        rows = read_row(value, served.rows[signature.name], _STEP_HINT)
        inputs = {name: row[np.newaxis] for name, row in rows.items()}
        step = Step([session], signature, inputs, terms.deadline, slab=session.slab, numbers=_numbers(number))
        step.priority_s, step.lane = terms.priority_s, terms.lane(step.lane)
        self._engine.submit(step, pending)

    def scan(
        self, id: str, value: Any, number: int | None, wanted: Sequence[str] | None, terms: Terms, pending: Pending
    ) -> None:
        """Run a chunk of time steps of a session; `value` holds `[time, ...]` for each input. Otherwise as `step`."""
        session, served, signature = self._stepping(id, "scan", wanted)
        chunk = read_row(value, served.rows[signature.name], _SCAN_HINT)
        length = time_steps(chunk, signature)
        bound = bound_for(length, self._settings.scan_steps)
        lengths = {signature.lengths or "": np.array([length], np.int32)}
        step = Step(
            [session], signature, padded(chunk, bound) | lengths, terms.deadline,
            slab=session.slab, length=length, time_bound=bound, numbers=_numbers(number),
        )  # fmt: skip
        step.priority_s, step.lane = terms.priority_s, terms.lane(step.lane)
        self._engine.submit(step, pending)

    def step_many(
        self, model: str, ids: Sequence[str], value: Any, numbers: Sequence[int] | None,
        wanted: Sequence[str] | None, terms: Terms, pending: Pending,
    ) -> None:  # fmt: skip
        """Run one time step of many sessions of a model; `value` holds `[sessions, ...]` for each input.

        `numbers`: by session, -1 where a step is not numbered. Its outcome is `Answers`, a row for each session; what
        is wrong with one is an error of its row.

        Raises:
            ModelNotFound, BadRequest, UnsupportedByModel, and what `read_inputs` raises: the whole call is refused.
        """
        if model not in self._catalog.models:  # as after a restart
            in_task(self._step_unknown, model, ids, value, numbers, wanted, terms, pending=pending)
            return
        self._check_many(ids, numbers)

        def read(slab: Slab) -> tuple[Signature, dict[str, Array]]:
            served = self._catalog.get(slab.model, slab.version)
            signature = served.stepping("step")
            if slab.answers is None:
                raise UnsupportedByModel(
                    f"Model {slab.model!r} answers a step with text or with outputs of no fixed size, which do not "
                    "stand in one array. Step its sessions one by one."
                )
            check_wanted(wanted, signature)
            inputs = read_inputs(value, signature.inputs)
            if lacking := {name: len(array) for name, array in inputs.items() if len(array) != len(ids)}:
                raise ShapeMismatch(
                    f"Each input needs as many rows as there are sessions, {len(ids)}; {counted(lacking)}."
                )
            return signature, inputs

        sessions = [self._session_of(model, id) for id in ids]
        largest = terms.part(self._settings.batching.max_rows, self._settings.queue_rows)
        columns = divided(sessions, read, terms.deadline, numbers, largest)
        steps = [step for _, step in columns.steps]
        for step in steps:
            step.priority_s, step.lane = terms.priority_s, terms.lane(step.lane)
        self._engine.submit_all(steps, pending.then(columns.joined), each=True)

    def _stepping(self, id: str, kind: str, wanted: Sequence[str] | None) -> tuple[Session, ServedVersion, Signature]:
        session = self.get(id)
        served = self._catalog.get(session.model, session.slab.version)
        signature = served.stepping(kind)
        check_wanted(wanted, signature)
        return session, served, signature

    def _open(
        self,
        served: ServedVersion,
        id: str | None,
        *,
        rows: Mapping[str, Array],
        ttl_s: float | None = None,
        step: int = 0,
    ) -> Session:
        _check_id(id)
        session = self._engine.scheduler.open(
            id or self._new_id(), served.model, served.version, served.stepping("step"), self._engine.now(),
            ttl_s=ttl_s, rows=rows, step=step,
        )  # fmt: skip
        self._engine.changed()
        return session

    def _end(self, session: Session) -> None:
        self._engine.scheduler.end(session, Event.CLOSE, self._engine.now())
        self._engine.changed()

    def _session_of(self, model: str, id: str) -> Session | SluiceError:
        try:
            session = self.get(id)
        except SluiceError as error:
            return error
        if session.model != model:
            return BadRequest(f"Session {id!r} is on model {session.model!r}, and the call is for model {model!r}.")
        return session

    async def _saved_on(self, saved: SavedState, deadline: float) -> ServedVersion:
        try:
            return await self._resolver.find(ModelSpec(saved.model, saved.version), deadline)
        except (ModelNotFound, VersionNotFound) as error:
            raise StateIncompatible(
                f"The saved state is of a model version that is not served. {error.message}"
            ) from None

    async def _step_unknown(self, model: str, *call: Any) -> Any:
        """Step many sessions of a model that nobody has called here yet, if there is one."""
        await self._resolver.find(ModelSpec(model), call[-1].deadline)
        return await awaited(partial(self.step_many, model, *call))

    def _check_many(self, ids: Sequence[str], numbers: Sequence[int] | None) -> None:
        if not ids:
            raise EmptyInput("A call for many sessions names one or more; got none.")
        if len(ids) > self._settings.queue_rows:
            limit = self._settings.queue_rows
            raise BatchTooLarge(
                f"A call may step {limit} sessions; {len(ids)} came. Split it, or raise queue_rows.", limit=limit
            )
        if len(set(ids)) < len(ids):
            twice = next(id for id, count in Counter(ids).items() if count > 1)
            raise BadRequest(f"Each session may be named once in a call; {twice!r} is named twice.")
        if numbers is not None and len(numbers) != len(ids):
            raise BadRequest(f"There are {len(ids)} sessions and {len(numbers)} steps; give one for each, or null.")

    def _check_same(self, session: Session, model: str, version: int | None) -> None:
        if session.model != model or version not in (None, session.slab.version):
            raise SessionExists(
                f"Session {session.id!r} is open on model {session.model!r} version {session.slab.version}, not on "
                "what was asked for. Choose another id, or close it."
            )

    def _check_not_draining(self) -> None:
        if self.draining:
            raise Draining("This gateway is stopping and opens no more sessions. Try again; another one will answer.")

    def _new_id(self) -> str:
        return f"{_ID_PREFIX}{self.generation}-{secrets.token_hex(8)}"

    def _rfc3339(self, at: float) -> str:
        return datetime.fromtimestamp(at + self._wall_offset_s, UTC).isoformat(timespec="milliseconds")

    def _check_ttl(self, ttl_s: float | None) -> None:
        limit = self._settings.session_life_s
        if ttl_s is not None and not 0 < ttl_s <= limit:
            raise BadRequest(f"ttl_s is in seconds, more than 0 and at most {limit:g}; got {ttl_s}.")


def _check_id(id: str | None) -> None:
    if id is not None and not re.fullmatch(SESSION_ID, id):
        raise BadRequest(f"A session's id has {ID_IN_WORDS}; got {id!r:.200}.")


def _numbers(number: int | None) -> tuple[int] | None:
    return None if number is None else (number,)
