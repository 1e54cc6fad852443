"""A model that answers from arrays, in place of a gateway; and the rows that are asked of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sluice.client import NotCalibrated, RecognizedRow
from sluice.data import Column, Rows
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks import Subject
from sluice.evaluator.tasks.task import Task, Values
from sluice.policy.contract import Axis, Contract, Signature, Tensor

Answer = Callable[[Mapping[str, Any]], Mapping[str, Column]]
ID = Axis("batch")


def tensor(name: str, *axes: Axis | int | None, dtype: str = "float32", **about: Any) -> Tensor:
    """A tensor; axes are given without the batch axis, and by their size alone where their name does not matter."""
    own = [each if isinstance(each, Axis) else Axis(f"axis {i}", each) for i, each in enumerate(axes, 1)]
    return Tensor(name, dtype, (ID, *own), **about)


def signature(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], kind: Any = "rows", **about: Any) -> Any:
    return Signature(name, kind, {each.name: each for each in inputs}, {each.name: each for each in outputs}, **about)


def subject(*signatures: Signature, contract: bool = True, **about: Any) -> Subject:
    named = {each.name: each for each in signatures}
    return Subject("puppet", 1, Contract("", named, {}, **about) if contract else None, named)


def rows_of(labels: Any, weights: Any = None, *, places: int = 0, **inputs: Any) -> Rows:
    """Rows with these inputs (without any, their places), from `places` on."""
    count = len(labels)
    groups, sessions = inputs.pop("groups", None), inputs.pop("sessions", None)
    numbers = np.arange(places, places + count)
    weights = np.ones(count) if weights is None else np.asarray(weights, float)
    return Rows(numbers, inputs or {"x": numbers}, labels, weights, groups, sessions)


def some(rows: Rows, start: int, stop: int) -> Rows:
    own = slice(start, stop)
    return Rows(
        rows.places[own], {name: each[own] for name, each in rows.inputs.items()}, rows.labels[own],
        rows.weights[own], rows.groups and rows.groups[own], rows.sessions and rows.sessions[own],
    )  # fmt: skip


@dataclass
class Puppet:
    """Answers `predict` by `answers`, with one function for every signature or one for each."""

    answers: Answer | Mapping[str, Answer]
    recognized: Callable[[Mapping[str, Any]], Sequence[RecognizedRow]] | None = None
    step: Callable[[Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]] | None = None
    start: Any = None
    asked: list[tuple[str, Mapping[str, Any], Any]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    forks: int = 0

    async def predict(self, inputs: Mapping[str, Column], outputs: Sequence[str], signature: str) -> Any:
        self.asked.append((signature, inputs, tuple(outputs)))
        answer = self.answers if callable(self.answers) else self.answers[signature]
        found = answer(inputs)
        return {name: found[name] for name in outputs}

    async def recognize(self, inputs: Mapping[str, Column], method: str | None, level: float | None) -> Any:
        self.asked.append(("recognize", inputs, (method, level)))
        if self.recognized is None:
            raise NotCalibrated("No calibration is in use.")
        return self.recognized(inputs)

    async def session(self) -> Any:
        return PuppetSession(self, self.start)


class PuppetSession:
    """A session of a puppet, whose `step` takes a state and inputs and gives the next state and outputs."""

    def __init__(self, puppet: Puppet, state: Any) -> None:
        self.puppet, self.state = puppet, state
        puppet.open += 1
        puppet.most_open = max(puppet.most_open, puppet.open)

    async def step(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        assert self.puppet.step is not None
        self.state, found = self.puppet.step(self.state, inputs)
        return {name: found[name] for name in outputs}

    async def scan(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        length = len(next(iter(inputs.values())))
        found = [await self.step({name: each[t] for name, each in inputs.items()}, outputs) for t in range(length)]
        return {name: np.stack([each[name] for each in found]) for name in outputs}

    async def fork(self) -> Any:
        self.puppet.forks += 1
        return PuppetSession(self.puppet, self.state)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.puppet.open -= 1


async def values_of(task: Task, rows: Rows, asked: Any) -> dict[str, Any]:
    """The values of all rows, with their weights, as metrics take them; by what a look at all of them tells."""
    await task.prepare(rows, asked)
    return {**await task.values(rows, asked), "weight": rows.weights}


def options(**given: Any) -> Options:
    return Options(**given)


def found(task: Task, values: Values) -> dict[str, float]:
    return {name: measure.of(values) for name, measure in task.measures.items()}
