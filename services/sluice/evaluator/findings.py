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
    """The values of all rows, in data-set order, as asked for and of another version; and what batch sizes gave."""

    main: Values
    batch_sizes: Sequence[BatchSize] = ()
    other: Values | None = None


def findings(
    spec: Spec, subject: Subject, task: Task, data: DataFacts, found: Found, notes: Sequence[str], run: Run,
    go_on: Callable[[], object] = bool,
) -> Document:  # fmt: skip
    """The document of an evaluation; `go_on` is called time and again, and what it raises ends it."""
    main, measures = weighing(found.main), _chosen(spec, task)
    sessions = main.get(SESSION) if task.whole_sessions else None
    bootstrap = Bootstrap(spec.level, spec.options.resamples, spec.options.seed, sessions, go_on)
    metrics = metrics_of(measures, main, bootstrap)
    sections: list[Section] = [*task.sections(main, metrics)]
    if GROUP in main:
        sections.append(slices(measures, main, main[GROUP]))
    conditions, comparison = gates.parse(spec.fail_if, task.measures), None
    if found.other is not None and (version := gates.version_compared(conditions, spec.compare_to)) is not None:
        comparison = compared(task, version, main, weighing(found.other), bootstrap, main.get(GROUP), measures)
    return Document(
        model=subject.model,
        version=subject.version,
        summary="" if subject.contract is None else subject.contract.summary,
        task=spec.task,
        data=data,
        spec=spec.model_dump(mode="json", exclude_none=True),
        metrics=metrics,
        sections=tuple(sections),
        batch_sizes=tuple(found.batch_sizes),
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


def at_batch_size(spec: Spec, task: Task, main: Values, size: int, by_rows: Task, values: Values) -> BatchSize:
    """The metrics at a batch size, and how far the rows' outputs and answers are from those of the main run."""
    wanted = _chosen(spec, task)
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
