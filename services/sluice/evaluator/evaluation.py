"""Carries out one evaluation: what is not there yet is asked for, part by part, and the document is made of all values.

It does not know where values are kept, who asked, or how a document is shown.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from sluice.data import DataSet, File, look
from sluice.evaluator.asking import client_of, resident_memory
from sluice.evaluator.document import DataFacts, Document, Run
from sluice.evaluator.findings import findings
from sluice.evaluator.spec import Spec
from sluice.evaluator.subject import describe, find
from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.task import Array, Subject, Values
from sluice.evaluator.work import Work, cut, in_order
from sluice.policy.errors import BadRequest, TooLarge

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is, over all its runs; what `eta_s` is nobody knows before the first part is done."""

    rows_done: int
    rows: int
    rows_per_s: float
    eta_s: float | None


class Kept(Protocol):
    """Where one evaluation keeps the values of its parts, by run."""

    def numbers(self, run: str) -> set[int]:
        """The parts that are there."""

    def keep(self, run: str, number: int, rows: int, values: Mapping[str, Array]) -> None:
        """Keep the values of a part's rows, all or nothing."""

    def read(self, run: str, number: int) -> Mapping[str, Array]:
        """What was kept."""


Told = Callable[[Progress], None]
Now = Callable[[], float]
Memory = Callable[[], Awaitable[int | None]]  # bytes that serving takes now, where that is known
Engine = Callable[[Work, Sequence[int]], AsyncIterator[tuple[int, Values]]]


async def here(work: Work, numbers: Sequence[int]) -> AsyncIterator[tuple[int, Values]]:
    """The engine "local": one part after another, in this process."""
    async with work.client() as client:
        for number in numbers:
            yield number, await work.values(number, client)


@dataclass(slots=True)
class _Clock:
    """Rows that are done, and how fast: of those done since the start, which may be a restart."""

    rows: int
    told: Told
    now: Now
    began: float = field(init=False)
    done: int = 0
    since: int = 0

    def __post_init__(self) -> None:
        self.began = self.now()

    def there(self, rows: int) -> None:
        self.done += rows

    def add(self, rows: int) -> None:
        self.done, self.since = self.done + rows, self.since + rows
        self.told(Progress(self.done, self.rows, self.rate, (self.rows - self.done) / self.rate if self.rate else None))

    @property
    def rate(self) -> float:
        return self.since / max(1e-9, self.now() - self.began) if self.since else 0.0


async def evaluate(
    spec: Spec,
    files: Sequence[File],
    gateway: str,
    kept: Kept,
    told: Told,
    *,
    id: str,
    now: Now,
    engine: Engine = here,
    memory: Memory | None = None,
) -> Document:
    """The document of an evaluation; what `kept` holds of it already is not asked for again.

    `now` gives seconds since 1970, and `memory` the bytes that serving takes: without it, what the gateway's own does.

    Raises:
        BadRequest: the data is not as the task and the model need it.
        NotFound, Unavailable, NoAnswer: the model or the gateway is away, and it can go on later.
    """
    began = now()
    async with client_of(gateway, exact=spec.exact) as client:
        subject = await find(client, spec)
        other = None if spec.compare_to is None else await describe(client, spec.model, spec.compare_to)
    data_set = await asyncio.to_thread(_looked, spec, files, subject)
    task = task_for(spec.task, subject, spec.options)
    work = Work(
        spec, data_set, gateway, subject.version,
        cut(data_set, spec.batch_size, whole_sessions=task.whole_sessions), exact=spec.exact, filled=spec.exact,
    )  # fmt: skip
    runs = {MAIN: work} | {f"batch-{size}": work.at(size) for size in _sizes(spec, data_set)}
    if other is not None:
        runs[f"version-{other.version}"] = replace(work, version=other.version)
    clock = _Clock(data_set.rows * len(runs), told, now)
    values, speeds, notes = dict[str, Values](), list[Mapping[str, float | int | None]](), list[str]()
    for name, each in runs.items():
        started, before = now(), clock.since
        try:
            values[name] = await _run(name, each, kept, clock, engine)
        except TooLarge as error:
            if name == MAIN:
                raise
            notes.append(f"Batches of {each.cut.batch_size} rows were not measured: {error.message}")
            continue
        if name.startswith("batch-"):
            seconds = now() - started
            rate = (clock.since - before) / seconds if clock.since > before and seconds > 0 else None
            speeds.append(
                {
                    "batch_size": each.cut.batch_size,
                    "rows_per_s": rate,
                    "memory_bytes": await (memory or partial(resident_memory, gateway))(),
                }
            )
    run = Run(
        evaluation=id, began_at=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=now() - began, rows_per_s=clock.rate, batch_sizes=speeds,
    )  # fmt: skip
    facts = DataFacts(source=data_set.source, sha256=data_set.sha256, rows=data_set.rows, bytes=data_set.bytes)
    return await asyncio.to_thread(findings, spec, subject, task, facts, values, notes, run)


async def _run(name: str, work: Work, kept: Kept, clock: _Clock, engine: Engine) -> Values:
    """The values of all rows, in order; parts that are missing are done now."""
    there = await asyncio.to_thread(kept.numbers, name)
    clock.there(sum(len(work.cut.parts[number]) for number in there))
    missing = [number for number in range(len(work.cut.parts)) if number not in there]
    async for number, values in engine(work, missing):
        await asyncio.to_thread(kept.keep, name, number, len(work.cut.parts[number]), values)
        clock.add(len(work.cut.parts[number]))
    return await asyncio.to_thread(_all, name, work, kept)


def _all(name: str, work: Work, kept: Kept) -> Values:
    return in_order([kept.read(name, number) for number in range(len(work.cut.parts))])


def _looked(spec: Spec, files: Sequence[File], subject: Subject) -> DataSet:
    signature = subject.signatures.get(spec.options.signature)
    if signature is None:
        raise BadRequest(
            f"Model {subject.model!r} has no signature {spec.options.signature!r}; it has "
            f"{', '.join(subject.signatures)}. Name one in options.signature."
        )
    data_set = look(files, signature, spec.columns)
    if not data_set.rows:
        raise BadRequest(f"{data_set.source}: expected rows; got none.")
    return data_set


def _sizes(spec: Spec, data_set: DataSet) -> Sequence[int]:
    """The batch sizes that are compared, no larger than the data set."""
    return [*dict.fromkeys(min(data_set.rows, data_set.rows if size == "whole" else size) for size in spec.batch_sizes)]
