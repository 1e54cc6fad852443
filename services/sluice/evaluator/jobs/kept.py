"""The values of one evaluation's parts, in the database: a part and the count of rows that are done are written as one.

A process that is killed loses the part that it was at, and a database elsewhere needs no volume here.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from io import BytesIO

import numpy as np
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from sluice.evaluator.jobs.life_cycle import Status
from sluice.evaluator.jobs.tables import Evaluation, Part
from sluice.evaluator.progress import Progress
from sluice.evaluator.tasks.task import Array


class NoLongerRuns(Exception):
    """The evaluation was cancelled or deleted a moment ago."""


class KeptParts:
    """`latest` is how far the engine says that it is, which is written down with each part."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Session]], evaluation: int) -> None:
        self.latest: Progress | None = None
        self._begin = begin
        self._evaluation = evaluation

    def numbers(self, run: str) -> set[int]:
        with self._begin() as session:
            return set(session.scalars(select(Part.number).where(*self._of(run))))

    def keep(self, run: str, number: int, rows: int, values: Mapping[str, Array]) -> None:
        """A part that is there already stays as it is.

        Raises:
            NoLongerRuns: its values are wanted no more.
        """
        packed = pack(values)
        with self._begin() as session:
            evaluation = session.get(Evaluation, self._evaluation, with_for_update=True)
            if evaluation is None or evaluation.status != Status.RUNNING:
                raise NoLongerRuns
            if session.get(Part, (self._evaluation, run, number)) is not None:
                return
            session.add(Part(evaluation=self._evaluation, run=run, number=number, rows=rows, values=packed))
            evaluation.rows_done += rows
            if self.latest is not None:
                evaluation.rows, evaluation.rows_per_s = self.latest.rows, self.latest.rows_per_s

    def read(self, run: str, number: int) -> Mapping[str, Array]:
        """Raises: KeyError: the part is not there."""
        with self._begin() as session:
            found = session.scalars(select(Part.values).where(*self._of(run), Part.number == number)).first()
        if found is None:
            raise KeyError(f"part {number} of {run} is not kept")
        return unpack(found)

    def _of(self, run: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return Part.evaluation == self._evaluation, Part.run == run


def pack(values: Mapping[str, Array]) -> bytes:
    """As a compressed .npz. Names stand in an array of their own, as numpy takes some for its own arguments.

    Raises:
        ValueError: an array is of Python objects, which would have to be pickled.
    """
    if objects := [name for name, array in values.items() if array.dtype.hasobject]:
        raise ValueError(f"values {objects} are Python objects; expected numbers or text of one dtype")
    packed = BytesIO()
    np.savez_compressed(packed, *values.values(), names=np.array([*values], np.str_))
    return packed.getvalue()


def unpack(packed: bytes) -> Mapping[str, Array]:
    with np.load(BytesIO(packed), allow_pickle=False) as found:
        return {str(name): found[f"arr_{place}"] for place, name in enumerate(found["names"])}
