"""Asks the gateway: rows in requests of one batch size, a bounded number at a time, answers in the order of the rows.

It does not know what answers mean. Live traffic goes before what is asked here.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sluice.client import AsyncClient, AsyncSession, RecognizedRow
from sluice.data import Column
from sluice.evaluator.tasks.task import Array, Subject

T = TypeVar("T")

_RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)

_ROWS_IN_FLIGHT = 128  # beyond two requests: enough that the gateway's batches are full
_WITHIN_S, _TOTAL_S, _ATTEMPTS = 60.0, 120.0, 1000  # a gateway that is away may be restarting


def client_of(url: str, *, exact: bool, attempts: int = _ATTEMPTS) -> AsyncClient:
    """A client whose calls wait for others; with `exact`, what a call holds runs as a batch of its own."""
    headers = {"Sluice-Priority": "low"} | ({"Sluice-Batch": "exact"} if exact else {})
    return AsyncClient(url, headers=headers, attempts=attempts, timeout_s=_WITHIN_S, total_s=_TOTAL_S)


async def resident_memory(url: str) -> int | None:
    """How many bytes the gateway's process holds; None where it does not say."""
    async with AsyncClient(url) as client:
        found = _RESIDENT.search(await client.metrics())
    return None if found is None else int(float(found[1]))


@dataclass(frozen=True, slots=True)
class Asking:
    """The way to one version of a model, `sluice.evaluator.tasks.task.Asked`.

    With `filled`, the last request of a call has as many rows as the others: its last row is repeated.
    """

    client: AsyncClient
    subject: Subject
    batch_size: int
    filled: bool = False

    async def predict(
        self, inputs: Mapping[str, Column], outputs: Sequence[str], signature: str
    ) -> Mapping[str, Column]:
        async def one(rows: Mapping[str, Column]) -> Mapping[str, Column]:
            return await self.client.predict(
                self.subject.model, rows, outputs, signature=signature, version=self.subject.version
            )

        answers = await self._in_requests(inputs, one)
        total = _count(inputs)
        return {name: _joined([answer[name] for answer in answers])[:total] for name in answers[0]}

    async def recognize(
        self, inputs: Mapping[str, Column], method: str | None, level: float | None
    ) -> Sequence[RecognizedRow]:
        async def one(rows: Mapping[str, Column]) -> Sequence[RecognizedRow]:
            recognized = await self.client.recognize(
                self.subject.model, rows, method=method, level=level, sets=True, version=self.subject.version
            )
            return recognized.results

        answers = await self._in_requests(inputs, one)
        return [row for answer in answers for row in answer][: _count(inputs)]

    async def session(self) -> AsyncSession:
        return await self.client.open(self.subject.model, version=self.subject.version)

    async def _in_requests(
        self, inputs: Mapping[str, Column], ask: Callable[[Mapping[str, Column]], Awaitable[T]]
    ) -> list[T]:
        size, total = self.batch_size, _count(inputs)
        room = asyncio.Semaphore(max(2, _ROWS_IN_FLIGHT // size))

        async def within(start: int) -> T:
            async with room:
                rows = {name: column[start : start + size] for name, column in inputs.items()}
                return await ask(
                    {name: _filled(column, size) for name, column in rows.items()} if self.filled else rows
                )

        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(within(start)) for start in range(0, total, size)]
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return [each.result() for each in asked]


def _count(inputs: Mapping[str, Column]) -> int:
    return len(next(iter(inputs.values())))


def _filled(column: Column, rows: int) -> Column:
    missing = rows - len(column)
    if isinstance(column, list):
        return column + [column[-1]] * missing
    return np.concatenate([column, np.repeat(column[-1:], missing, axis=0)])


def _joined(parts: Sequence[Column]) -> Column:
    """Requests' outputs as one; of rows that differ in length, each row's array."""
    arrays = [part for part in parts if not isinstance(part, list) and not _uneven(part)]
    if len(arrays) < len(parts) or len({array.shape[1:] for array in arrays}) > 1:
        return [np.asarray(row) for part in parts for row in part]
    return np.concatenate(arrays)


def _uneven(part: Array) -> bool:
    """Whether its rows are arrays of their own."""
    return part.dtype == object and isinstance(part[0], np.ndarray)
