"""Carries out one evaluation: what is not there yet is asked for, part by part, and the document is made of all values.

It does not know where values are kept, who asked, or how a document is shown.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import NamedTuple

from sluice.data import Columns, DataSet, File, look
from sluice.data.columns import listed
from sluice.evaluator.asking import client_of, resident_memory
from sluice.evaluator.document import BatchSize, DataFacts, Document, Run
from sluice.evaluator.findings import Found, at_batch_size, findings
from sluice.evaluator.plan import plan_of, version_compared
from sluice.evaluator.progress import Kept, Progress
from sluice.evaluator.spec import Spec
from sluice.evaluator.subject import describe, find
from sluice.evaluator.tasks.task import Subject, Task, Values
from sluice.evaluator.work import Work, in_order
from sluice.policy.errors import BadRequest, TooLarge

_FIRST_ATTEMPTS = 3  # who is not there at the beginning is told so soon

Told = Callable[[Progress], None]
Now = Callable[[], float]
Memory = Callable[[], Awaitable[int | None]]  # bytes that serving takes now, where that is known
Speed = Mapping[str, float | int | None]
AtBatchSize = Callable[[int, Task, Values], BatchSize]
GoOn = Callable[[], None]
Engine = Callable[[Work, Sequence[int]], AsyncGenerator[tuple[int, Values]]]


async def here(work: Work, numbers: Sequence[int]) -> AsyncGenerator[tuple[int, Values]]:
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
        NotFound: there is no such model or version; after the first rows: no more.
        Unavailable, NoAnswer: the gateway or the data is away, and it can go on later.
    """
    began = now()
    async with client_of(gateway, exact=False, attempts=_FIRST_ATTEMPTS) as client:
        subject, version = await find(client, spec), version_compared(spec)
        other = None if version is None else await describe(client, spec.model, version)
    with _while_awaited() as go_on, await asyncio.to_thread(_looked, spec, files, subject, go_on) as data_set:
        plan = await asyncio.to_thread(plan_of, spec, subject, other, data_set, gateway)
        for work in (plan.main, plan.other):
            if work is not None:
                await work.prepare()
        runs = _Runs(data_set.sha256, kept, _Clock(data_set.rows * plan.runs, told, now), engine)
        main = await runs.values("main", plan.main)
        reduced = partial(at_batch_size, spec, plan.main.task, main)
        sizes = await runs.at_sizes(plan.sizes, reduced, memory or partial(resident_memory, gateway))
        found = Found(main, sizes.found, None if plan.other is None else await runs.values("other", plan.other))
        run = Run(
            evaluation=id, began_at=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=now() - began, rows_per_s=runs.clock.rate, batch_sizes=sizes.speeds,
        )  # fmt: skip
        facts = DataFacts(source=_named(files), sha256=data_set.sha256, rows=data_set.rows, bytes=data_set.bytes)
        notes = [*plan.notes, *sizes.notes]
        return await asyncio.to_thread(findings, spec, subject, plan.main.task, facts, found, notes, run, go_on)


class _Over(Exception):
    """Nobody waits for what a thread does."""


@contextmanager
def _while_awaited() -> Iterator[GoOn]:
    """What threads call meanwhile, and what ends them afterwards: one that goes on takes its place from others."""
    over = Event()

    def go_on() -> None:
        if over.is_set():
            raise _Over

    try:
        yield go_on
    finally:
        over.set()


class _Sizes(NamedTuple):
    """What was found by batch size: metrics, speed and memory, and why a size was left out."""

    found: Sequence[BatchSize]
    speeds: tuple[Speed, ...]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Carries out runs: the parts that are missing are done now.

    Parts are kept under the version, the checksum of the data and its cut, so that those of others are never taken for
    them: not even those of an evaluator that cut it otherwise.
    """

    sha256: str
    kept: Kept
    clock: _Clock
    engine: Engine

    async def values(self, name: str, work: Work) -> Values:
        """The values of all rows, in order."""
        parts, name = work.cut.parts, f"{name} {self._digest(work)}"
        there = await asyncio.to_thread(self.kept.numbers, name)
        self.clock.there(sum(len(parts[number]) for number in there))
        missing = [number for number in range(len(parts)) if number not in there]
        async with aclosing(self.engine(work, missing)) as done:
            async for number, values in done:
                await asyncio.to_thread(self.kept.keep, name, number, len(parts[number]), values)
                self.clock.add(len(parts[number]))
        await asyncio.to_thread(work.data_set.check_unchanged)  # the report says of which bytes these values are
        return await asyncio.to_thread(self._all, name, len(parts))

    async def at_sizes(self, works: Mapping[int, Work], reduced: AtBatchSize, memory: Memory) -> _Sizes:
        """What each batch size gives, one after another; one that the gateway does not take is left out."""
        clock = self.clock
        found, speeds, notes = list[BatchSize](), list[Speed](), list[str]()
        for size, work in works.items():
            started, before, done = clock.now(), clock.since, clock.done
            try:
                values = await self.values(f"batch-{size}", work)
            except TooLarge as error:
                notes.append(f"Batches of {size} rows were not measured: {error.message}")
                clock.rows -= work.cut.rows - (clock.done - done)
                continue
            whole = clock.since - before == work.cut.rows  # and not only what an earlier run had left
            rate = work.cut.rows / (clock.now() - started) if whole else None
            speeds.append({"batch_size": size, "rows_per_s": rate, "memory_bytes": await memory()})
            found.append(await asyncio.to_thread(reduced, size, work.task, values))
            del values  # before the next ones come
        return _Sizes(found, tuple(speeds), notes)

    def _digest(self, work: Work) -> str:
        what = work.subject.version, self.sha256, work.cut.batch_size, *map(len, work.cut.parts)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    def _all(self, name: str, parts: int) -> Values:
        return in_order([self.kept.read(name, number) for number in range(parts)])


def _looked(spec: Spec, files: Sequence[File], subject: Subject, go_on: GoOn) -> DataSet:
    signature = subject.signatures.get(spec.options.signature)
    if signature is None:
        raise BadRequest(
            f"Model {subject.model!r} has no signature {spec.options.signature!r}; it has "
            f"{', '.join(subject.signatures)}. Name one in options.signature."
        )
    columns = Columns(**spec.columns.model_dump())
    data_set = look(files, signature.inputs, signature.length_inputs, columns, go_on)
    if (expected := spec.data.sha256) is not None and expected.lower() != data_set.sha256:
        raise BadRequest(
            f"data.sha256: expected data of the SHA-256 {expected.lower()}; that of {_named(files):.200} is "
            f"{data_set.sha256}. It is damaged or another version: send it again, or name the one that is meant."
        )
    _check_labels(data_set, spec.columns.label)
    return data_set


def _named(files: Sequence[File]) -> str:
    return ", ".join(file.name for file in files)


def _check_labels(data_set: DataSet, column: str) -> None:
    if "label" not in data_set.given:
        other = data_set.unused[0] if data_set.unused else "COLUMN"
        raise BadRequest(
            f"{data_set.found.file}: expected a column {column!r}, what is right for each row; got "
            f"{listed(data_set.found.names)}. Name it so, or say in NAME.evaluation.json which it is: "
            f'"columns": {{"label": {json.dumps(other)}}}; over HTTP, in `columns.label`.'
        )
