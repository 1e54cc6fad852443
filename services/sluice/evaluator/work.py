"""What one run over a data set consists of: parts of rows that are asked for and judged each by itself.

A part can be done anywhere and in any order: here, or by a worker on another machine. It does not know which are done.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.client import AsyncClient
from sluice.data import DataSet, Rows
from sluice.evaluator.asking import Asking, client_of
from sluice.evaluator.tasks.task import Subject, Task, Values
from sluice.evaluator.tasks.values import joined

PLACE, WEIGHT, GROUP, SESSION = "place", "weight", "group", "session"  # beside the task's own values
LOOKED_AT = 100  # rows that are looked at first

Places = NDArray[np.int64]


class Cut(NamedTuple):
    """How a data set is cut: rows of a request, and the rows of each part by their places."""

    batch_size: int
    parts: Sequence[range | Places]

    @property
    def rows(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True)
class Work:
    """A run: the data set through one version, in requests of one size. It can be pickled."""

    subject: Subject
    task: Task
    data_set: DataSet
    gateway: str
    cut: Cut
    exact: bool = False  # each request is a batch of its own
    filled: bool = False  # and all of them have the same number of rows

    async def prepare(self) -> None:
        """Let the task see the answers to the first rows.

        Raises:
            SluiceError: as `values`.
        """
        rows = await asyncio.to_thread(self._read, self.cut.parts[0][:LOOKED_AT])
        async with self.client() as client:
            await self.task.prepare(rows, self._asking(client))

    async def values(self, number: int, client: AsyncClient) -> Values:
        """The values of a part's rows, with their places and weights.

        Raises:
            SluiceError: the gateway's refusal, or what is wrong with the rows.
        """
        read = await asyncio.to_thread(self._read, self.cut.parts[number])
        beside = {GROUP: read.groups, SESSION: read.sessions}
        return {
            PLACE: read.places,
            WEIGHT: read.weights,
            **{name: np.array(texts, np.str_) for name, texts in beside.items() if texts is not None},
            **await self.task.values(read, self._asking(client)),
        }

    def client(self) -> AsyncClient:
        return client_of(self.gateway, exact=self.exact)

    def _asking(self, client: AsyncClient) -> Asking:
        return Asking(client, self.subject, self.cut.batch_size, self.filled)

    def _read(self, part: range | Places) -> Rows:
        return self.data_set.read(part.start, part.stop) if isinstance(part, range) else self.data_set.read_rows(part)


def in_order(parts: Sequence[Values]) -> Values:
    """The values of all rows, in the order of the data set."""
    found = joined(parts)
    if (np.diff(found[PLACE]) > 0).all():
        return found
    order = np.argsort(found[PLACE], kind="stable")
    return {name: array[order] for name, array in found.items()}
