"""One time step of many sessions in one call; sessions that were refused for the moment are asked again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice.client.retry import Patience, persistently, worth_repeating
from sluice.client.session import AsyncSession, no_session
from sluice.client.transport import Transport
from sluice.client.turns import Turns
from sluice.client.values import Answer, Array, Columns, ManyCall
from sluice.policy.errors import SluiceError

Result = Answer | SluiceError | None


@dataclass
class StepMany:
    """One call; `inputs` are `[sessions, ...]`, and `results` fill up by session."""

    transport: Transport
    model: str
    sessions: Sequence[AsyncSession]
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    results: list[Result] = field(init=False)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.sessions)

    async def run(self, patience: Patience) -> Columns:
        """Ask until every session has an answer or an error that stays.

        Raises:
            SluiceError: the call as a whole was refused, or not answered, and no session has an answer.
        """
        try:
            await persistently(self._attempt, patience, repeatable=self._repeatable)
        except SluiceError as error:
            if all(result is None for result in self.results):
                raise
            self.results = [error if result is None else result for result in self.results]
        return _columns(self.results)

    @property
    def _repeatable(self) -> bool:
        return all(session.numbered for session in self.sessions)

    async def _attempt(self, timeout_s: float) -> None:
        left = [index for index, result in enumerate(self.results) if self._is_open(result)]
        rows = list(await self.transport.step_many(self._call(left), timeout_s))
        for index, result in zip(left, rows, strict=True):
            self.results[index] = result
            if isinstance(result, Answer):
                self.sessions[index].steps_done = result.step
        for result in rows:
            if isinstance(result, SluiceError) and self._is_open(result):
                raise result

    def _is_open(self, result: Result) -> bool:
        """Whether a session has neither an answer nor an error that stays."""
        if isinstance(result, SluiceError):
            return worth_repeating(result, repeatable=self._repeatable)
        return result is None

    def _call(self, rows: Sequence[int]) -> ManyCall:
        sessions = [self.sessions[row] for row in rows]
        return ManyCall(
            self.model,
            [session.id for session in sessions],
            [session.version for session in sessions],
            {name: array[list(rows)] for name, array in self.inputs.items()},
            [session.number for session in sessions],
            self.outputs,
        )


def turns_of(sessions: Sequence[AsyncSession]) -> list[Turns]:
    """Whose turn it is in each session.

    Raises:
        ValueError: they are something else, such as their ids.
    """
    if not isinstance(sessions, Collection) or isinstance(sessions, str):
        raise no_session("step_many", sessions)
    for session in sessions:
        if not isinstance(session, AsyncSession):
            raise no_session("step_many", session)
    return [session.turns for session in sessions]


def _columns(results: Sequence[Result]) -> Columns:
    answered = {row: result for row, result in enumerate(results) if isinstance(result, Answer)}
    outputs: dict[str, Array] = {}
    for name, example in next(iter(answered.values())).outputs.items() if answered else ():
        outputs[name] = _empty(len(results), example)
        for row, answer in answered.items():
            outputs[name][row] = answer.outputs[name]
    return Columns(
        outputs,
        [answered[row].step if row in answered else None for row in range(len(results))],
        [result if isinstance(result, SluiceError) else None for result in results],
    )


def _empty(rows: int, example: Array) -> Array:
    return np.full((rows, *example.shape), b"" if example.dtype.hasobject else 0, example.dtype)
