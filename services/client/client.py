"""The asynchronous client of one gateway: the transport by the URL, the retries, and what can be asked for."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from services.client.grpc import GrpcTransport
from services.client.http import HttpTransport
from services.client.many import StepMany
from services.client.retry import Patience, persistently
from services.client.session import AsyncSession
from services.client.stream import AsyncStream
from services.client.transport import Transport
from services.client.turns import turn
from services.client.values import Columns, IfExists, Opened, Opening, Page, Values, arrays_of


class AsyncClient:
    """A gateway at `url`: http://HOST:PORT, https://HOST:PORT or grpc://HOST:PORT, with the same methods.

    A call is sent up to `attempts` times: after a broken connection, and after 429, 503 and 504, as soon as the gateway
    says or else after a growing, random wait. `timeout_s` is the limit that the gateway gets for one attempt, in
    seconds (raise it for long scans); no attempt begins more than `total_s` seconds after the first. `headers` go with
    every call, over gRPC as metadata. `sleep` and `clock` replace the time in tests.

    It belongs to one event loop, in which it must be made; `async with` closes its connections at the end.

    Raises:
        ValueError: another kind of URL.
    """

    def __init__(
        self,
        url: str,
        *,
        attempts: int = 8,
        timeout_s: float = 10.0,
        total_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = Patience(attempts, timeout_s, total_s, sleep, clock)
        self._transport = transport_to(url, headers or {})

    async def open(
        self,
        model: str,
        session: str | None = None,
        *,
        version: int | str | None = None,
        label: str | None = None,
        state: Mapping[str, ArrayLike] | None = None,
        ttl_s: float | None = None,
        if_exists: IfExists = "error",
        numbered: bool = True,
    ) -> AsyncSession:
        """Open a session at time step 0: `session` is an id of your own, without which the gateway makes one.

        `version` or `label` choose the model version, `state` is name → row of initial state, `ttl_s` how long the
        session may be idle, in seconds. If the id is open already: `if_exists="return"` gives that session as it is,
        `"restart"` begins it again. Without `numbered`, steps carry no number: they may then run twice, or be given up
        when a connection breaks.

        If the first answer is lost, a repeat can meet the session that it opened, as `SessionExists`; without an id
        of your own one may stay behind until its idle time is over.

        Raises:
            SluiceError: the gateway's refusal.
            NoAnswer: the gateway could not be reached.
        """
        opening = Opening(
            model,
            session,
            None if version is None else str(version),
            label,
            None if state is None else arrays_of(state),
            ttl_s,
            if_exists,
        )
        opened = await persistently(partial(self._transport.open, opening), self._patience)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def session(self, id: str, *, numbered: bool = True) -> AsyncSession:
        """An open session, to go on from its present time step."""
        view = await persistently(partial(self._transport.view, id), self._patience)
        opened = Opened(view.session, view.model, view.version, view.step)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def restore(self, id: str, envelope: bytes, *, numbered: bool = True) -> AsyncSession:
        """A session with a state that `AsyncSession.state` gave: a new one, or the open one of this id.

        Raises:
            StateIncompatible: it is of another model or version than the open session, or than what is served.
            BadRequest: it is damaged.
        """
        opened = await persistently(partial(self._transport.put_state, id, envelope), self._patience)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def list(self, model: str, *, limit: int = 100, after: str = "") -> Page:
        """Your own sessions of a model, in order of id: `limit` at most, behind the id `after`."""
        return await persistently(partial(self._transport.list, model, limit, after), self._patience)

    async def step_many(
        self,
        model: str,
        sessions: Sequence[AsyncSession],
        values: Values,
        outputs: Sequence[str] | None = None,
    ) -> Columns:
        """Run one time step of each of many sessions, all of `model`, in one call.

        `values` are name → `[sessions, ...]`, or the array itself if the model has one input.

        Raises:
            SluiceError: the call as a whole was refused; errors of single sessions are in the answer.
            NoAnswer: the gateway could not be reached.
            ValueError: another number of rows than of sessions.
        """
        inputs = arrays_of(values)
        for name, array in inputs.items():
            if array.shape[:1] != (len(sessions),):
                raise ValueError(f"Input {name!r} takes [sessions={len(sessions)}, ...]; got shape {array.shape}.")
        async with turn([session.turns for session in sessions]):
            return await StepMany(self._transport, model, sessions, inputs, outputs or ()).run(self._patience)

    def stream(self, model: str) -> AsyncStream:
        """A stream for the steps of any sessions of a model; it is opened at the first step."""
        return AsyncStream(model, self._transport.lane(self._patience.timeout_s))

    async def aclose(self) -> None:
        """Close the connections; sessions stay open."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def transport_to(url: str, headers: Mapping[str, str]) -> Transport:
    """The transport that a URL asks for.

    Raises:
        ValueError: another kind of URL.
    """
    scheme, _, address = url.rstrip("/").partition("://")
    if scheme in ("http", "https") and address:
        return HttpTransport(url.rstrip("/"), headers)
    if scheme == "grpc" and address:
        return GrpcTransport(address, headers)
    raise ValueError(f"A gateway's URL is http://HOST:PORT, https://HOST:PORT or grpc://HOST:PORT; got {url!r}.")
