"""Carries out one evaluation: what is not there yet is asked for, part by part, and the document is made of all values.

It does not know where values are kept, who asked, or how a document is shown.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from sluice.data import Columns, DataSet, File, look
from sluice.evaluator.asking import client_of, resident_memory
from sluice.evaluator.document import DataFacts, Document, Run
from sluice.evaluator.findings import Found, findings, other_version
from sluice.evaluator.progress import Kept, Progress
from sluice.evaluator.spec import Spec
from sluice.evaluator.subject import find
from sluice.evaluator.tasks.task import Subject, Values
from sluice.evaluator.work import Work, cut_of, in_order, task_of
from sluice.policy.errors import BadRequest, TooLarge

Told = Callable[[Progress], None]
Now = Callable[[], float]
Memory = Callable[[], Awaitable[int | None]]  # bytes that serving takes now, where that is known
Speed = Mapping[str, float | int | None]
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
    memory_of = memory or partial(resident_memory, gateway)
    async with client_of(gateway, exact=spec.exact) as client:
        subject = await find(client, spec)
    data_set = await asyncio.to_thread(_looked, spec, files, subject)
    task = task_of(spec, subject, data_set)
    version = other_version(spec, task)
    cut = cut_of(data_set, spec.batch_size, whole_sessions=task.whole_sessions)
    main = Work(spec, data_set, gateway, subject.version, cut, exact=spec.exact, filled=spec.exact)
    by_rows = bool(task.stateless)
    sizes = {
        size: replace(
            main, cut=cut_of(data_set, size, whole_sessions=task.whole_sessions and not by_rows), exact=True,
            filled=False, by_rows=by_rows,
        )
        for size in _sizes(spec, data_set)
    }  # fmt: skip
    others = {} if version is None else {version: replace(main, version=version)}
    clock = _Clock(data_set.rows * (1 + len(sizes) + len(others)), told, now)
    runs = _Runs(kept, clock, engine)
    values = await runs.values("main", main)
    compared = {number: await runs.values(f"version-{number}", work) for number, work in others.items()}
    by_size, speeds, notes = dict[int, Values](), list[Speed](), list[str]()
    for size, work in sizes.items():
        started, before = now(), clock.since
        try:
            by_size[size] = await runs.values(f"batch-{size}", work)
        except TooLarge as error:
            notes.append(f"Batches of {size} rows were not measured: {error.message}")
            continue
        seconds, done = now() - started, clock.since - before
        rate = done / seconds if done == data_set.rows and seconds > 0 else None  # of a whole run only
        speeds.append({"batch_size": size, "rows_per_s": rate, "memory_bytes": await memory_of()})
    run = Run(
        evaluation=id, began_at=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=now() - began, rows_per_s=clock.rate, batch_sizes=tuple(speeds),
    )  # fmt: skip
    named = ", ".join(file.name for file in files)
    facts = DataFacts(source=named, sha256=data_set.sha256, rows=data_set.rows, bytes=data_set.bytes)
    found = Found(values, by_size, next(iter(compared.items()), None))
    alone = task_of(spec, subject, data_set, by_rows=by_rows)
    return await asyncio.to_thread(findings, spec, subject, (task, alone), facts, found, notes, run)


@dataclass(frozen=True, slots=True)
class _Runs:
    """Carries out runs: the parts that are missing are done now."""

    kept: Kept
    clock: _Clock
    engine: Engine

    async def values(self, name: str, work: Work) -> Values:
        """The values of all rows, in order."""
        parts = work.cut.parts
        there = await asyncio.to_thread(self.kept.numbers, name)
        self.clock.there(sum(len(parts[number]) for number in there))
        missing = [number for number in range(len(parts)) if number not in there]
        async for number, values in self.engine(work, missing):
            await asyncio.to_thread(self.kept.keep, name, number, len(parts[number]), values)
            self.clock.add(len(parts[number]))
        return await asyncio.to_thread(self._all, name, len(parts))

    def _all(self, name: str, parts: int) -> Values:
        return in_order([self.kept.read(name, number) for number in range(parts)])


def _looked(spec: Spec, files: Sequence[File], subject: Subject) -> DataSet:
    signature = subject.signatures.get(spec.options.signature)
    if signature is None:
        raise BadRequest(
            f"Model {subject.model!r} has no signature {spec.options.signature!r}; it has "
            f"{', '.join(subject.signatures)}. Name one in options.signature."
        )
    return look(files, signature.inputs, signature.length_inputs, Columns(**spec.columns.model_dump()))


def _sizes(spec: Spec, data_set: DataSet) -> Sequence[int]:
    """The batch sizes that are compared, no larger than the data set."""
    return [*dict.fromkeys(min(data_set.rows, data_set.rows if size == "whole" else size) for size in spec.batch_sizes)]
