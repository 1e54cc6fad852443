"""Decides how a call of many sessions is divided into steps that run together, and puts their answers together again.

It does not know transports, nor how inputs are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Rows
from sluice.policy.contract import Signature
from sluice.policy.errors import SluiceError
from sluice.policy.session import Answers, Session, Step
from sluice.policy.slab import Slab

Array = NDArray[Any]
Reader = Callable[[Slab], tuple[Signature, Rows]]


@dataclass(frozen=True, slots=True)
class Columns:
    """A call of `rows` sessions: its steps, each with the rows of the call that are its own, and who is in none."""

    rows: int
    steps: Sequence[tuple[Sequence[int], Step]]
    errors: Mapping[int, SluiceError] = field(default_factory=dict)

    def joined(self, outcomes: Sequence[Answers | SluiceError]) -> Answers:
        """The answers to the call; `outcomes` are those of its steps, in order.

        Raises:
            SluiceError: the one step that the call consists of was refused as a whole.
        """
        if len(self.steps) == 1 and not self.errors:
            step, outcome = self.steps[0][1], outcomes[0]
            if isinstance(outcome, Answers):
                return outcome
            if not step.errors:
                raise outcome
        errors, outputs, steps = dict(self.errors), dict[str, Array](), [-1] * self.rows
        for (own, step), outcome in zip(self.steps, outcomes, strict=True):
            if isinstance(outcome, SluiceError):
                errors |= dict.fromkeys(own, outcome) | {own[row]: error for row, error in step.errors.items()}
                continue
            errors |= {own[row]: error for row, error in outcome.errors.items()}
            for row, number in zip(own, outcome.steps, strict=True):
                steps[row] = number
            for name, array in outcome.outputs.items():
                column = outputs.setdefault(name, np.zeros((self.rows, *array.shape[1:]), array.dtype))
                column[list(own)] = array
        return Answers(outputs, steps, errors)


def divided(
    sessions: Sequence[Session | SluiceError],
    read: Reader,
    deadline: float,
    numbers: Sequence[int] | None,
    largest: int,
) -> Columns:
    """One step for the sessions of each model version, of `largest` rows at most.

    `sessions`: by row, or why there is none. `read` gives a version's step signature and the inputs of all rows.
    """
    groups: dict[Slab, list[int]] = {}
    for row, session in enumerate(sessions):
        if isinstance(session, Session):
            groups.setdefault(session.slab, []).append(row)
    steps = []
    for slab, rows in groups.items():
        signature, inputs = read(slab)
        for start in range(0, len(rows), largest):
            own = rows[start : start + largest]
            steps.append((own, _step(sessions, own, signature, inputs, deadline, numbers, slab)))
    return Columns(len(sessions), steps, {row: e for row, e in enumerate(sessions) if isinstance(e, SluiceError)})


def _step(
    sessions: Sequence[Any], own: Sequence[int], signature: Signature, inputs: Rows, deadline: float,
    numbers: Sequence[int] | None, slab: Slab,
) -> Step:  # fmt: skip
    if len(own) == len(sessions):
        return Step(sessions, signature, inputs, deadline, slab=slab, numbers=numbers)
    taken = {name: array[own] for name, array in inputs.items()}
    some = None if numbers is None else [numbers[row] for row in own]
    return Step([sessions[row] for row in own], signature, taken, deadline, slab=slab, numbers=some)
