"""Runs series through sessions of a model: with the right value at each time step, or with its own forecasts.

It does not know errors. Sessions are closed whatever happens.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sluice.client import AsyncSession
from sluice.evaluator.tasks.task import Array, Asked
from sluice.policy.contract import Contract, Signature

T = TypeVar("T")

_STEPS = 256  # of a scan, at most: enough that calls are few, and far below the gateway's limit
_SESSIONS = 64  # that are open at a time, each with one fork at most


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What a model gave for a series.

    teacher_forced: `[time, ...]`, after each time step of the series. free_running: by origin, `[horizon, ...]`: the
    forecast after that time step, and then those that follow from forecasts.
    """

    teacher_forced: Array
    free_running: Mapping[int, Array]


@dataclass(frozen=True, slots=True)
class Stepper:
    """How a stateful model is moved on: by `scan` where that answers at each time step, or else by `step`."""

    step: Signature | None
    scan: Signature | None
    output: str

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """By input, the shape of its values at one time step."""
        if self.step is not None:
            return {name: tensor.shape[1:] for name, tensor in self.step.inputs.items()}
        assert self.scan is not None
        return {name: tensor.shape[2:] for name, tensor in self.scan.inputs.items()}

    @property
    def feeds_itself(self) -> bool:
        """Whether the output at one time step can be the only input at the next."""
        signature, start = (self.step, 1) if self.step is not None else (self.scan, 2)
        assert signature is not None
        output, inputs = signature.outputs[self.output], [*signature.inputs.values()]
        return len(inputs) == 1 and (inputs[0].shape[start:], inputs[0].dtype) == (output.shape[start:], output.dtype)

    async def run(
        self, asked: Asked, series: Mapping[str, Array], origins: Sequence[int], horizon: int
    ) -> Forecasts:  # fmt: skip
        """Run one series, by input `[time, ...]`, through a session of its own.

        After each of the `origins`, rising, a fork forecasts freely for `horizon` time steps.
        """
        length = len(next(iter(series.values())))
        stops = sorted({*range(_STEPS, length, _STEPS), *(origin + 1 for origin in origins), length})
        found, free, start = list[Array](), dict[int, Array](), 0
        async with await asked.session() as session:
            for stop in stops:
                found.append(await self._on(session, {name: array[start:stop] for name, array in series.items()}))
                start = stop
                if stop - 1 in origins:
                    async with await session.fork() as fork:
                        free[stop - 1] = await self._freely(fork, found[-1][-1], horizon)
        return Forecasts(np.concatenate(found), free)

    async def _on(self, session: AsyncSession, part: Mapping[str, Array]) -> Array:
        """The outputs of some time steps, `[time, ...]`."""
        if self.scan is not None:
            return (await session.scan(part, [self.output]))[self.output]
        length = len(next(iter(part.values())))
        steps = [{name: array[step] for name, array in part.items()} for step in range(length)]
        return np.stack([(await session.step(step, [self.output]))[self.output] for step in steps])

    async def _freely(self, fork: AsyncSession, forecast: Array, horizon: int) -> Array:
        found = [forecast]
        name = next(iter(self.inputs))
        for _ in range(horizon - 1):
            if self.step is not None:
                found.append((await fork.step({name: found[-1]}, [self.output]))[self.output])
            else:
                found.append((await self._on(fork, {name: found[-1][np.newaxis]}))[0])
        return np.stack(found)


def stepper_of(contract: Contract | None, output: str | None) -> Stepper | None:
    """How the model is moved on; None if it has no step and no scan that gives the output at each time step.

    output: its name, or None for the only one.
    """
    if contract is None:
        return None
    scan = contract.scan if contract.scan and all(each.has_time for each in contract.scan.outputs.values()) else None
    signature = scan or contract.step
    if signature is None:
        return None
    names = [*signature.outputs] if output is None else [output]
    if len(names) != 1 or names[0] not in signature.outputs:
        return None
    return Stepper(contract.step, scan, names[0])


async def together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all calls, a bounded number of which run at a time; the first error ends the others."""
    free = asyncio.Semaphore(_SESSIONS)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
