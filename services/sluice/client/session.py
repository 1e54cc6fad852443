"""A session as a client holds it: its id, and the number of the next step, which goes with every call."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from sluice.client.arguments import check_name, check_number, names_of
from sluice.client.errors import NoAnswer
from sluice.client.retry import Patience, persistently
from sluice.client.transport import Transport
from sluice.client.turns import Turns, turn
from sluice.client.values import Answer, Array, Call, Opened, SessionView, Values, arrays_of
from sluice.policy.errors import SessionClosed, SessionEnded

Send = Callable[[Call, float], Awaitable[Answer]]


class AsyncSession:
    """An open session; made by `AsyncClient.open` and `AsyncClient.session`.

    Calls of one session run one after another, in the order in which they were made. With `numbered`, each step and
    scan carries `steps_done`, so that it takes effect once however often it is sent, and others who step the same
    session are noticed. A call that fails leaves `steps_done` as it was. One that was cancelled may have run;
    `view` then says where the session is.

    As a context manager it closes the session at the end.
    """

    def __init__(self, transport: Transport, patience: Patience, opened: Opened, *, numbered: bool) -> None:
        self.id = opened.session
        self.model = opened.model
        self.version = opened.version
        self.steps_done = opened.step
        self.numbered = numbered
        self.replayed = False  # whether the last answer had been given before
        self.turns = Turns()
        self._transport = transport
        self._patience = patience

    async def step(self, values: Values, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one time step: a row for each input, without a batch axis, or the row itself if there is one input.

        Returns output name → row, in the contract's dtypes; `outputs` names those that are wanted.

        Raises:
            SluiceError: the gateway's refusal; `StepMismatch` if somebody else stepped the session.
            NoAnswer: the gateway could not be reached.
        """
        return await self.run(partial(self._transport.run, "step"), values, outputs)

    async def scan(self, values: Values, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run a chunk of time steps, `[time, ...]` for each input; gives name → `[time, ...]`. Otherwise as `step`.

        A model with `return_sequences=False` gives the outputs after the last time step.
        """
        return await self.run(partial(self._transport.run, "scan"), values, outputs)

    async def run(self, send: Send, values: Values, outputs: Sequence[str] | None) -> dict[str, Array]:
        """Run a call by way of `send`, which gets it and the seconds it may take."""
        inputs, names = arrays_of(values), names_of(outputs)
        async with turn([self.turns]):
            call = Call(self.id, self.model, self.version, inputs, self.number, names)
            answer = await persistently(partial(send, call), self._patience, repeatable=self.numbered)
            self.steps_done, self.replayed = answer.step, answer.replayed
            return answer.outputs

    @property
    def number(self) -> int | None:
        """What the next call carries as its `step`."""
        return self.steps_done if self.numbered else None

    async def fork(self, id: str | None = None) -> "AsyncSession":
        """A new session with a copy of this one's state and time step."""
        if id is not None:
            check_name("A session", id)
        async with turn([self.turns]):
            opened = await persistently(partial(self._transport.fork, self.id, id), self._patience)
        return AsyncSession(self._transport, self._patience, opened, numbered=self.numbered)

    async def renew(self, ttl_s: float | None = None) -> SessionView:
        """Count as used now, and change how long the session may be idle, in seconds."""
        check_number("ttl_s", ttl_s, " of seconds")
        return await persistently(partial(self._transport.renew, self.id, ttl_s), self._patience)

    async def view(self) -> SessionView:
        """The session as the gateway sees it; its time step is where the next call goes on."""
        async with turn([self.turns]):
            view = await persistently(partial(self._transport.view, self.id), self._patience)
            self.steps_done = view.step
            return view

    async def state(self) -> bytes:
        """The state as a sealed envelope, with model, version and time step, for `put_state` and `restore`."""
        async with turn([self.turns]):
            return await persistently(partial(self._transport.get_state, self.id), self._patience)

    async def put_state(self, envelope: bytes) -> None:
        """Put a saved state in place of this one; the session goes on at its time step.

        Raises:
            StateIncompatible: it is of another model or version.
            BadRequest: it is damaged.
        """
        async with turn([self.turns]):
            opened = await persistently(partial(self._transport.put_state, self.id, envelope), self._patience)
            self.version, self.steps_done = opened.version, opened.step

    async def close(self) -> None:
        """Close the session, behind the calls that were made before."""
        unanswered = False

        async def once(timeout_s: float) -> None:
            nonlocal unanswered
            try:
                await self._transport.close(self.id, timeout_s)
            except NoAnswer:
                unanswered = True
                raise
            except SessionClosed:
                if not unanswered:
                    raise

        async with turn([self.turns]):
            await persistently(once, self._patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(SessionEnded):  # which is what was wanted, or what the block was told
            await self.close()


def no_session(call: str, given: object) -> ValueError:
    """What to say of something that is no session."""
    return ValueError(f"{call} takes sessions, as client.open and client.session give them; got {given!r:.80}.")
