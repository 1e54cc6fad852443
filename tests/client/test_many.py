"""Sessions that are refused for the moment are asked again, the others are not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sluice.client.errors import NoAnswer
from sluice.client.many import StepMany
from sluice.client.retry import Patience
from sluice.client.session import AsyncSession
from sluice.client.values import Answer, Columns, ManyCall, Opened
from sluice.policy.errors import QueueFull, SessionClosed, ShapeMismatch, SluiceError

BUSY, GONE = QueueFull("Not now."), SessionClosed("It was closed.")


class Script:
    """A transport that answers call after call as the test says: what becomes of each row, or of the whole call."""

    def __init__(self, *answers: SluiceError | Sequence[SluiceError | None]) -> None:
        self.answers = list(answers)
        self.calls: list[ManyCall] = []

    async def step_many(self, call: ManyCall, timeout_s: float) -> Sequence[Answer | SluiceError]:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, SluiceError):
            raise answer
        return [
            error or Answer({"y": call.inputs["x"][row] * 2, "name": np.array([b"n"], object)}, call.steps[row] + 1)
            for row, error in enumerate(answer)
        ]


async def step_many(script: Any, *, attempts: int = 5, numbered: bool = True) -> tuple[Columns, list[AsyncSession]]:
    async def at_once(_: float) -> None: ...

    patience = Patience(attempts=attempts, sleep=at_once)
    opened = [Opened(id, "m", "1", 0) for id in "abc"]
    sessions = [AsyncSession(script, patience, each, numbered=numbered) for each in opened]
    inputs = {"x": np.arange(3, dtype=np.float32)[:, np.newaxis]}
    return await StepMany(script, "m", sessions, inputs, ()).run(patience), sessions


async def test_rows_that_were_refused_for_the_moment_are_sent_again_alone() -> None:
    script = Script([None, BUSY, GONE], [BUSY], [None])
    columns, sessions = await step_many(script)
    assert [list(call.sessions) for call in script.calls] == [["a", "b", "c"], ["b"], ["b"]]
    assert script.calls[1].inputs["x"].tolist() == [[1]]
    assert columns.steps == [1, 1, None]
    assert columns.errors == [None, None, GONE]
    assert columns.outputs["y"].tolist() == [[0], [2], [0]]
    assert columns.outputs["name"].tolist() == [[b"n"], [b"n"], [b""]]
    assert [session.steps_done for session in sessions] == [1, 1, 0]


async def test_when_attempts_are_over_rows_keep_their_errors() -> None:
    columns, _ = await step_many(Script([None, BUSY, None], [BUSY]), attempts=2)
    assert columns.errors == [None, BUSY, None]
    assert columns.steps == [1, None, 1]


async def test_rows_keep_their_errors_when_a_repeat_is_refused_as_a_whole() -> None:
    columns, _ = await step_many(Script([None, BUSY, None], ShapeMismatch("Wrong.")))
    assert columns.errors == [None, BUSY, None]


async def test_a_call_that_is_refused_as_a_whole_raises() -> None:
    with pytest.raises(ShapeMismatch):
        await step_many(Script(ShapeMismatch("Wrong.")))


async def test_a_call_without_an_answer_is_sent_again_if_all_are_numbered() -> None:
    columns, _ = await step_many(Script(NoAnswer("Cut."), [None] * 3))
    assert columns.steps == [1, 1, 1]
    with pytest.raises(NoAnswer):
        await step_many(Script(NoAnswer("Cut."), [None] * 3), numbered=False)
