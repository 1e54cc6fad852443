"""A stream that stays open and carries the steps of many sessions at the same time."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from sluice.client.session import AsyncSession, no_session
from sluice.client.transport import Lane
from sluice.client.values import Array, Values


class AsyncStream:
    """Made by `AsyncClient.stream`: one gRPC stream, or over HTTP a WebSocket for each session.

    When it is cut it opens itself again, and steps without an answer are sent again, each with its number.
    """

    def __init__(self, model: str, lane: Lane) -> None:
        self._model = model
        self._lane = lane

    async def step(
        self, session: AsyncSession, values: Values, outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """As `AsyncSession.step`; steps of different sessions run at the same time.

        Raises:
            ValueError: the session is of another model, or none.
        """
        if not isinstance(session, AsyncSession):
            raise no_session("A stream's step", session)
        if session.model != self._model:
            raise ValueError(f"This stream is for model {self._model!r}; {session.id!r} is of {session.model!r}.")
        return await session.run(self._lane.step, values, outputs)

    async def aclose(self) -> None:
        """Close the stream; its sessions stay open."""
        await self._lane.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
