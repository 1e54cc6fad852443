"""Plans an evaluation: which runs over the data set it has, and how the data set is cut for each of them.

For the same data set and spec it is always the same plan, so that what a killed evaluator has left fits in.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sluice.data import DataSet
from sluice.evaluator import gates
from sluice.evaluator.spec import Spec
from sluice.evaluator.tasks import metric_names, task_for
from sluice.evaluator.tasks.task import Subject
from sluice.evaluator.work import LOOKED_AT, SESSION, Cut, Places, Work
from sluice.policy.errors import BadRequest

_LARGEST_BATCH = 100
_NUMBERS_IN_REQUEST = 80_000  # about a megabyte of JSON
_ROWS_IN_PART, _NUMBERS_IN_PART = 1000, 4_000_000
_NUMBERS_IN_BATCH = 8 << 20  # which are read at once; of one digit each, as many as a gateway takes by default


class Plan(NamedTuple):
    """The runs: the main one, of another version, by batch size; `notes` say which batch sizes are left out."""

    main: Work
    other: Work | None
    sizes: Mapping[int, Work]
    notes: Sequence[str]

    @property
    def runs(self) -> int:
        return 1 + (self.other is not None) + len(self.sizes)


def version_compared(spec: Spec) -> int | None:
    """The version to compare with; what the spec asks of metrics is judged, for any model.

    Raises:
        BadRequest: the task has no such metric, or a condition cannot be read, or versions differ.
    """
    return _judged(spec, metric_names(spec.task, spec.options))


def plan_of(spec: Spec, subject: Subject, other: Subject | None, data_set: DataSet, gateway: str) -> Plan:
    """The plan; `other` is the version to compare with.

    Raises:
        BadRequest: the model is not one for the task, or has no such metric, or the batch size is too large.
    """
    sessions = SESSION in data_set.given
    task = task_for(spec.task, subject, spec.options, sessions=sessions)
    _judged(spec, task.measures)
    alone = task_for(spec.task, subject, spec.options, sessions=False) if task.stateless else task
    numbers = _numbers_of_row(data_set)
    largest = max(1, int(_NUMBERS_IN_BATCH // numbers))
    if spec.batch_size is not None and min(spec.batch_size, data_set.rows) > largest:
        raise BadRequest(f"`batch_size`: {_too_large(spec.batch_size, largest)}")
    cut = _cut(data_set, numbers, spec.batch_size, whole_sessions=task.whole_sessions)
    main = Work(subject, task, data_set, gateway, cut, exact=spec.exact, filled=spec.exact)
    at = replace(main, task=alone, exact=True, filled=False)
    sizes = _sizes(spec, data_set)
    whole = alone.whole_sessions
    cuts = {size: _cut(data_set, numbers, size, whole_sessions=whole) for size in sizes if size <= largest}
    return Plan(
        main=main,
        other=other and replace(main, subject=other, task=task_for(spec.task, other, spec.options, sessions=sessions)),
        sizes={size: replace(at, cut=cut) for size, cut in cuts.items()},
        notes=[_too_large(size, largest) for size in sizes if size > largest],
    )


def _too_large(size: int, largest: int) -> str:
    return f"Batches of {size} rows cannot be measured: rows like these are read {largest:,} at a time at most."


def _judged(spec: Spec, metrics: Collection[str]) -> int | None:
    for name in spec.metrics or ():
        gates.check_metric(name, metrics)
    return gates.version_compared(gates.parse(spec.fail_if, metrics), spec.compare_to)


def _sizes(spec: Spec, data_set: DataSet) -> Sequence[int]:
    """The batch sizes that are compared, no larger than the data set."""
    wanted = (data_set.rows if size == "whole" else size for size in spec.batch_sizes)
    return [*dict.fromkeys(min(size, data_set.rows) for size in wanted)]


def _cut(data_set: DataSet, numbers: float, batch_size: int | None, *, whole_sessions: bool) -> Cut:
    """Parts in the order of the data set, or of whole sessions; always the same for the same data set.

    Rows have so many `numbers` each. Without a batch size it is chosen so that requests are about a megabyte.
    """
    wanted = batch_size or int(np.clip(_NUMBERS_IN_REQUEST // numbers, 1, _LARGEST_BATCH))
    size = min(wanted, data_set.rows)  # the last request of a part may be filled up to it
    rows = int(np.clip(_NUMBERS_IN_PART // numbers, size, _ROWS_IN_PART))
    rows = max(1, rows // size) * size
    parts = [*_sessions(data_set, rows)] if whole_sessions else [*_ranges(data_set.rows, rows)]
    return Cut(size, parts)


def _numbers_of_row(data_set: DataSet) -> float:
    """How many numbers, or bytes of text, the inputs of a row have, about: those of the first ones."""
    rows = data_set.read(0, min(data_set.rows, LOOKED_AT))
    return max(1.0, sum(_numbers_in(row) for column in rows.inputs.values() for row in column) / len(rows))


def _numbers_in(row: Any) -> int:
    return len(row) if isinstance(row, bytes) else np.size(row)


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
