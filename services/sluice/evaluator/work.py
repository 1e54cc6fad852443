"""What one run over a data set consists of: parts of rows that are asked for and judged each by itself.

A part can be done anywhere and in any order: here, or by a worker on another machine. It does not know which are done.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.client import AsyncClient
from sluice.data import DataSet, Rows
from sluice.evaluator.asking import Asking, client_of
from sluice.evaluator.spec import Spec
from sluice.evaluator.subject import describe
from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.task import Array, Subject, Task, Values
from sluice.evaluator.tasks.values import joined

PLACE, WEIGHT, GROUP, SESSION = "place", "weight", "group", "session"  # beside the task's own values


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

    spec: Spec
    data_set: DataSet
    gateway: str
    version: int
    cut: Cut
    exact: bool = False  # each request is a batch of its own
    filled: bool = False  # and all of them have the same number of rows
    by_rows: bool = False  # no state is carried over from row to row

    async def values(self, number: int, client: AsyncClient | None = None) -> Values:
        """The values of a part's rows, with their places and weights.

        Raises:
            SluiceError: the gateway's refusal, or what is wrong with the rows.
        """
        if client is None:
            async with self.client() as own:
                return await self.values(number, own)
        subject = await describe(client, self.spec.model, self.version)
        read = await asyncio.to_thread(self._read, self.cut.parts[number])
        asking = Asking(client, subject, self.cut.batch_size, self.filled)
        task = task_of(self.spec, subject, self.data_set, by_rows=self.by_rows)
        beside = {GROUP: read.groups, SESSION: read.sessions}
        return {
            PLACE: read.places,
            WEIGHT: read.weights,
            **{name: np.array(texts, np.str_) for name, texts in beside.items() if texts is not None},
            **await task.values(read, asking),
        }

    def _read(self, part: range | Places) -> Rows:
        return self.data_set.read(part.start, part.stop) if isinstance(part, range) else self.data_set.read_rows(part)

    def client(self) -> AsyncClient:
        return client_of(self.gateway, exact=self.exact)


def task_of(spec: Spec, subject: Subject, data_set: DataSet, *, by_rows: bool = False) -> Task:
    """The task for these rows, whose sessions are left alone where each row is to be by itself.

    Raises:
        BadRequest: the model is not one for it.
    """
    return task_for(spec.task, subject, spec.options, sessions=SESSION in data_set.given and not by_rows)


def in_order(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The values of all rows, in the order of the data set."""
    found = joined(parts)
    order = np.argsort(found[PLACE], kind="stable")
    return {name: array[order] for name, array in found.items()}
