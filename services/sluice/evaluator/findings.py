"""Makes a document of the values of all rows: metrics, groups, batch sizes, another version, conditions to fail.

It asks nobody: what it is given decides what it says, to the last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sluice.evaluator import gates
from sluice.evaluator.comparison import compared
from sluice.evaluator.document import BatchSize, DataFacts, Document, Run, Section
from sluice.evaluator.slices import slices
from sluice.evaluator.spec import Spec
from sluice.evaluator.statistics import Bootstrap, metrics_of, weighing
from sluice.evaluator.tasks.task import Array, Measure, Subject, Task, Values
from sluice.evaluator.work import GROUP, SESSION

_CHANGED = 100  # rows that are named, at most


class Found(NamedTuple):
    """The values of all rows, in data-set order: as asked for, by batch size, and of another version."""

    main: Values
    batch_sizes: Mapping[int, Values]
    other: tuple[int, Values] | None = None


def findings(
    spec: Spec, subject: Subject, tasks: tuple[Task, Task], data: DataFacts, found: Found, notes: Sequence[str],
    run: Run, stopped: Callable[[], bool] = bool,
) -> Document:  # fmt: skip
    """The document of an evaluation; `tasks` are the one of the main run, and the one of batch sizes.

    Raises:
        Stopped: `stopped` says that nobody waits for it.
        BadRequest: the values of some rows do not fit those of others.
    """
    task, by_rows = tasks
    main, measures = weighing(found.main), _chosen(spec, task)
    sessions = main.get(SESSION) if task.whole_sessions else None
    bootstrap = Bootstrap(spec.level, spec.options.resamples, spec.options.seed, sessions, stopped)
    metrics = metrics_of(measures, main, bootstrap)
    sections: list[Section] = [*task.sections(main, metrics)]
    if GROUP in main:
        sections.append(slices(measures, main, main[GROUP]))
    comparison = None
    if found.other is not None:
        version, values = found.other[0], weighing(found.other[1])
        comparison = compared(task, version, main, values, bootstrap, main.get(GROUP), measures)
    conditions = gates.parse(spec.fail_if, task.measures)
    return Document(
        model=subject.model,
        version=subject.version,
        summary="" if subject.contract is None else subject.contract.summary,
        task=spec.task,
        data=data,
        spec=spec.model_dump(mode="json", exclude_none=True),
        metrics=metrics,
        sections=tuple(sections),
        batch_sizes=tuple(
            _at(size, task, by_rows, set(measures), found.main, values) for size, values in found.batch_sizes.items()
        ),
        comparison=comparison,
        gates=tuple(each.judged(metrics, comparison) for each in conditions),
        notes=(*task.notes(main), *notes),
        run=run,
    )


def _chosen(spec: Spec, task: Task) -> Mapping[str, Measure]:
    """The metrics to report: those that the spec and its conditions name, or all of the task."""
    if spec.metrics is None:
        return task.measures
    wanted = {*spec.metrics, *(condition.metric for condition in gates.parse(spec.fail_if, task.measures))}
    return {name: measure for name, measure in task.measures.items() if name in wanted}


def _at(size: int, task: Task, by_rows: Task, wanted: set[str], main: Values, values: Values) -> BatchSize:
    """The metrics at a batch size, and how far the rows' outputs and answers are from those of the main run."""
    counted = weighing(values)
    found = {f"{task.stateless}{name}": float(measure.of(counted)) for name, measure in by_rows.measures.items()}
    changed = np.empty(0, np.int64)
    if task.answered:
        changed = np.flatnonzero(main[task.answered] != values[by_rows.answered])
    return BatchSize(
        batch_size=size,
        metrics={name: value if np.isfinite(value) else None for name, value in found.items() if name in wanted},
        largest_difference=_difference(main[task.judged], values[by_rows.judged]) if task.judged else 0.0,
        changed_rows=tuple(changed[:_CHANGED].tolist()),
    )


def _difference(one: Array, other: Array) -> float:
    """The largest |a - b| / max(1, |a|) of any two outputs; NaN fills rows that are shorter than others."""
    own, others = one.astype(np.float64), other.astype(np.float64)
    far = np.abs(own - others) / np.maximum(1.0, np.abs(own))
    return float(np.max(far, initial=0.0, where=~(np.isnan(own) & np.isnan(others))))
