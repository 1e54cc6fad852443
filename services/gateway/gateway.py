"""Every call a client can make, once, for all transports: values in, answers or errors out.

It checks values against the contract and hands rows to the engine; it does not know HTTP, gRPC or JSON.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.gateway.catalog import Catalog, ServedVersion
from services.gateway.engine import Engine
from services.gateway.settings import Settings
from services.policy.batching import Lane, Ticket, rows_like
from services.policy.contract import Axis, Signature, State, Tensor
from services.policy.errors import (
    BackendError,
    BadRequest,
    BatchTooLarge,
    DeadlineExceeded,
    Draining,
    EmptyInput,
    SessionLost,
    SessionNotFound,
    ShapeMismatch,
    SluiceError,
    UnknownInput,
    VersionNotFound,
)
from services.policy.sessions import Answer, Event, Phase, Session, Step, ended_error
from services.policy.tensors import bound_for, padded, read_inputs, read_tensor, time_steps

Array = NDArray[Any]

_ID_PREFIX = "s-"
_MADE_ID = re.compile(r"s-([0-9a-f]+)-[0-9a-f]{16}")  # what `_new_id` gives, so that a client's own `s-7` is its own


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


class Gateway:
    """One gateway: its models, its sessions and its engine.

    Ids of sessions carry `generation`, made at boot, so that an id of an earlier run is told from a wrong one.
    """

    def __init__(self, settings: Settings, catalog: Catalog, engine: Engine) -> None:
        self.settings = settings
        self.catalog = catalog
        self.engine = engine
        self.draining = False
        self.generation = f"{time.time_ns() // 1_000_000:x}"
        self._wall_offset_s = time.time() - engine.now()

    @property
    def now(self) -> Callable[[], float]:
        return self.engine.now

    def deadline(self, timeout_ms: int | None, arrived_at: float) -> float:
        """When a request that arrived at `arrived_at` must be answered, in the engine's seconds."""
        return arrived_at + (timeout_ms or self.settings.timeout_ms) / 1000

    async def open_session(
        self,
        model: str,
        *,
        version: int | None = None,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
    ) -> SessionView:
        """Open a session at time step 0.

        Raises:
            Draining, ModelNotFound, VersionNotFound, UnsupportedByModel, SessionExists, SessionsFull, BadRequest and
            the errors of wrong values in `state`.
        """
        if self.draining:
            raise Draining("This gateway is stopping and opens no more sessions. Try again; another one will answer.")
        served = await self._find(model, version, self.deadline(None, self.now()))
        states = served.stepping("step").states
        self._check_ttl(ttl_s)
        rows = read_states(state or {}, states)
        session = self.engine.scheduler.open(
            id or self._new_id(), model, served.version, states, self.now(), ttl_s=ttl_s, rows=rows
        )
        self.engine.changed()
        return self.view(session)

    def session(self, id: str) -> Session:
        """The open session of this id.

        Raises:
            SessionNotFound, SessionLost, SessionClosed, SessionExpired, SessionEvicted, SessionVersionGone.
        """
        try:
            return self.engine.scheduler.sessions.get(id)
        except SessionNotFound:
            made = _MADE_ID.fullmatch(id)
            if made is not None and made[1] != self.generation:
                raise SessionLost(
                    f"Session {id!r} was opened on an earlier run of this gateway; its state is lost. Open a new one."
                ) from None
            raise

    def view(self, session: Session) -> SessionView:
        return SessionView(
            session.id,
            session.model,
            str(session.slab.version),
            session.step,
            len(session.steps),
            self._rfc3339(session.opened_at),
            self._rfc3339(session.last_used_at),
            self._rfc3339(session.expires_at),
            session.slab.row_bytes,
        )

    def list_sessions(self, model: str, after: str, limit: int) -> tuple[list[SessionView], str | None]:
        """Up to `limit` sessions of a model in order of id, and where to go on if there are more."""
        found = self.engine.scheduler.sessions.of_model(model, after, limit + 1)
        following = found[limit - 1].id if len(found) > limit else None
        return [self.view(session) for session in found[:limit]], following

    def renew(self, id: str, ttl_s: float | None) -> SessionView:
        """Count a session as used now; `ttl_s` changes how long it may be idle, in seconds."""
        self._check_ttl(ttl_s)
        session = self.session(id)
        self.engine.scheduler.sessions.renew(session, self.now(), ttl_s)
        self.engine.changed()
        return self.view(session)

    def close_session(self, id: str) -> None:
        """Close a session; its waiting and running steps are told."""
        self.engine.scheduler.end(self.session(id), Event.CLOSE, self.now())
        self.engine.changed()

    async def step(
        self, id: str, value: Any, number: int | None, wanted: Sequence[str] | None, deadline: float
    ) -> Answer:
        """Run one time step of a session; `value` holds a row for each input, without a batch axis.

        The answer has all outputs; `wanted` is only checked. Raises what `session`, `read_inputs` and the engine raise.
        """
        session = self.session(id)
        served = await self._served(session)
        signature = served.stepping("step")
        check_wanted(wanted, signature)
        rows = read_inputs(value, served.rows[signature.name])
        inputs = {name: row[np.newaxis] for name, row in rows.items()}
        return await self._run(Step(session, signature, inputs, deadline, number=number))

    async def scan(
        self, id: str, value: Any, number: int | None, wanted: Sequence[str] | None, deadline: float
    ) -> Answer:
        """Run a chunk of time steps of a session; `value` holds `[time, ...]` for each input. Otherwise as `step`."""
        session = self.session(id)
        served = await self._served(session)
        signature = served.stepping("scan")
        check_wanted(wanted, signature)
        chunk = read_inputs(value, served.rows[signature.name])
        length = time_steps(chunk, signature)
        bound = bound_for(length, self.settings.scan_steps)
        lengths = {signature.lengths or "": np.array([length], np.int32)}
        step = Step(
            session, signature, padded(chunk, bound) | lengths, deadline, length=length, time_bound=bound, number=number
        )
        return await self._run(step)

    async def predict(
        self,
        model: str,
        version: int | None,
        signature: str,
        read: Callable[[Mapping[str, Tensor]], Mapping[str, Array]],
        deadline: float,
    ) -> dict[str, Array]:
        """Run rows in batches shared with other clients. `read` gives them, name → `[rows, ...]`, for the inputs."""
        served = await self._find(model, version, deadline)
        try:
            return await self._predict(served, signature, read(served.signature(signature).inputs), deadline)
        except VersionNotFound as error:
            await self.catalog.missed(model, served.version)
            missed, reason = served, error.message
        # If the version went while the rows waited, who asked for the newest gets the one that replaced it.
        served = await self._find(model, version, deadline)
        if served is missed:
            raise BackendError(reason)
        return await self._predict(served, signature, read(served.signature(signature).inputs), deadline)

    async def _find(self, model: str, version: int | None, deadline: float) -> ServedVersion:
        """As `Catalog.find`, which may have to ask the model server; in time."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.catalog.find(model, version)
        except TimeoutError:
            raise DeadlineExceeded(f"The model server did not say in time whether it serves model {model!r}.") from None

    async def _predict(
        self, served: ServedVersion, signature: str, inputs: Mapping[str, Array], deadline: float
    ) -> dict[str, Array]:
        """Run rows of one version; more than one batch holds is split."""
        rows = self._count_rows(served, inputs)
        lane = Lane(served.model, served.version, signature, rows_like(inputs))
        largest = self.settings.batching.max_rows
        parts = [slice(start, min(start + largest, rows)) for start in range(0, rows, largest)]
        tickets = [
            Ticket(lane, {name: array[part] for name, array in inputs.items()}, part.stop - part.start, deadline)
            for part in parts
        ]
        if len(tickets) == 1:
            return dict(await self.engine.run(tickets[0]))
        return joined(await all_or_none([self.engine.run(ticket) for ticket in tickets]))

    def model_of(self, call: str, name: str) -> str:
        """The model that a call is about, for metrics: empty if there is none such, so that names stay few."""
        if call == "predict":
            return name if name in self.catalog.models else ""
        session = self.engine.scheduler.sessions.find(name)
        return session.model if session else ""

    async def _run(self, step: Step) -> Answer:
        try:
            answer: Answer = await self.engine.run(step)
        except VersionNotFound as error:
            session = step.session
            await self.catalog.missed(session.model, session.slab.version)
            if session.phase is Phase.VERSION_GONE:
                raise ended_error(session.id, session.phase) from None
            raise BackendError(error.message) from None
        return answer

    async def _served(self, session: Session) -> ServedVersion:
        return await self.catalog.find(session.model, session.slab.version)

    def _new_id(self) -> str:
        return f"{_ID_PREFIX}{self.generation}-{secrets.token_hex(8)}"

    def _rfc3339(self, at: float) -> str:
        return datetime.fromtimestamp(at + self._wall_offset_s, UTC).isoformat(timespec="milliseconds")

    def _check_ttl(self, ttl_s: float | None) -> None:
        limit = self.settings.session_life_s
        if ttl_s is not None and not 0 < ttl_s <= limit:
            raise BadRequest(f"ttl_s is in seconds, more than 0 and at most {limit:g}; got {ttl_s}.")

    def _count_rows(self, served: ServedVersion, inputs: Mapping[str, Array]) -> int:
        counts: dict[str, int] = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
        if len(set(counts.values())) > 1:
            raise ShapeMismatch(f"All inputs of a request have the same number of rows; got {counts}.")
        rows = next(iter(counts.values()), 0)
        if rows == 0:
            raise EmptyInput(f"A request to model {served.model!r} needs one row or more; got none.")
        if rows > self.settings.queue_rows:
            raise BatchTooLarge(
                f"A request may have {self.settings.queue_rows} rows, as many as may wait; {rows} came. Split it.",
                limit=self.settings.queue_rows,
            )
        return rows


def read_states(value: Mapping[str, Any], states: Sequence[State]) -> dict[str, Array]:
    """Explicit initial states, state name → row, checked against the contract."""
    tensors = {
        state.name: Tensor(state.name, state.dtype, tuple(Axis("state", size) for size in state.shape))
        for state in states
    }
    unknown = [name for name in value if name not in tensors]
    if unknown:
        raise UnknownInput(f"There is no state {', '.join(map(repr, unknown))}; this model has {', '.join(tensors)}.")
    return {name: read_tensor(each, tensors[name]) for name, each in value.items()}


def check_wanted(wanted: Sequence[str] | None, signature: Signature) -> None:
    """Raises: BadRequest for an output that the signature does not have."""
    unknown = [name for name in wanted or () if name not in signature.outputs]
    if unknown:
        raise BadRequest(
            f"There is no output {', '.join(map(repr, unknown))}; "
            f"this model has {', '.join(map(repr, signature.outputs))}."
        )


def joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of a request that was split, name → all its rows."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


async def all_or_none(runs: Sequence[Any]) -> list[Any]:
    """Run all; the first error cancels the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in runs]
    except* SluiceError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
