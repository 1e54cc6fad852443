"""What one run over a data set consists of: parts of rows that are asked for and judged each by itself.

A part can be done anywhere and in any order: here, or by a worker on another machine. It does not know which are done.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.client import AsyncClient
from sluice.data import DataSet
from sluice.evaluator.asking import Asking, client_of
from sluice.evaluator.spec import Spec
from sluice.evaluator.subject import describe
from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.task import Array, Subject, Task, Values

PLACE, WEIGHT, GROUP, SESSION = "place", "weight", "group", "session"  # beside the task's own values

_LARGEST_BATCH = 100
_NUMBERS_IN_REQUEST = 80_000  # about a megabyte of JSON
_ROWS_IN_PART, _NUMBERS_IN_PART = 1000, 4_000_000
_LOOKED_AT = 100  # rows

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
        part = self.cut.parts[number]
        read = self.data_set.read(part.start, part.stop) if isinstance(part, range) else self.data_set.read_rows(part)
        asking = Asking(client, subject, self.cut.batch_size, self.filled)
        task = task_of(self.spec, subject, self.data_set, by_rows=self.by_rows)
        beside = {GROUP: read.groups, SESSION: read.sessions}
        return {
            PLACE: read.places,
            WEIGHT: read.weights,
            **{name: np.array(texts, np.str_) for name, texts in beside.items() if texts is not None},
            **await task.values(read, asking),
        }

    def client(self) -> AsyncClient:
        return client_of(self.gateway, exact=self.exact)


def task_of(spec: Spec, subject: Subject, data_set: DataSet, *, by_rows: bool = False) -> Task:
    """The task for these rows, whose sessions are left alone where each row is to be by itself.

    Raises:
        BadRequest: the model is not one for it.
    """
    return task_for(spec.task, subject, spec.options, sessions=SESSION in data_set.given and not by_rows)


def cut_of(data_set: DataSet, batch_size: int | None, *, whole_sessions: bool) -> Cut:
    """Parts in the order of the data set, or of whole sessions; always the same for the same data set.

    Without a batch size it is chosen so that requests are about a megabyte.
    """
    numbers = _numbers_of_row(data_set)
    size = batch_size or int(np.clip(_NUMBERS_IN_REQUEST // numbers, 1, _LARGEST_BATCH))
    rows = int(np.clip(_NUMBERS_IN_PART // numbers, size, _ROWS_IN_PART))
    rows = max(1, rows // size) * size
    return Cut(size, [*_sessions(data_set, rows)] if whole_sessions else [*_ranges(data_set.rows, rows)])


def _numbers_of_row(data_set: DataSet) -> float:
    """How many numbers the inputs of a row have, about: those of the first ones."""
    rows = data_set.read(0, min(data_set.rows, _LOOKED_AT))
    return max(1.0, sum(np.size(row) for column in rows.inputs.values() for row in column) / len(rows))


def _ranges(total: int, rows: int) -> Iterator[range]:
    for start in range(0, total, rows):
        yield range(start, min(start + rows, total))


def _sessions(data_set: DataSet, rows: int) -> Iterator[Places]:
    """Sessions as they begin, as many as have about so many rows."""
    chosen = list[Places]()
    for session in data_set.sessions:
        chosen.append(session.places)
        if sum(map(len, chosen)) >= rows:
            yield np.sort(np.concatenate(chosen))
            chosen = []
    if chosen:
        yield np.sort(np.concatenate(chosen))


def in_order(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The values of all rows, in the order of the data set."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined[PLACE], kind="stable")
    return {name: array[order] for name, array in joined.items()}
