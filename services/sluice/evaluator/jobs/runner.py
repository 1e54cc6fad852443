"""Runs evaluations: in the order in which they were asked for, so many at one time, each until it ends or is stopped.

It does not know how one is evaluated, nor how they are asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from sluice.data import File
from sluice.evaluator.document import Document
from sluice.evaluator.jobs.changes import Changes
from sluice.evaluator.jobs.database import UNREACHABLE, CannotUse
from sluice.evaluator.jobs.kept import KeptParts, NoLongerRuns
from sluice.evaluator.jobs.life_cycle import Event
from sluice.evaluator.jobs.outcome import outcome_of
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.jobs.tables import Evaluation, Upload
from sluice.evaluator.progress import Progress
from sluice.evaluator.spec import Spec
from sluice.policy.errors import EvaluationConflict, EvaluationNotFound

log = structlog.get_logger()

RETRY_S = 2.0  # after what the database refused, or a bug
HELD_S = 5.0  # how often it is made sure that no other evaluator uses the database


Evaluate = Callable[..., Awaitable[Document]]  # `sluice.evaluator.evaluation.evaluate`


class Runner:
    """`files_of` finds the data of an evaluation; `evaluate` calls what it is told with in the event loop.

    `progress` is how far those are that run, by id. `refused` says that another evaluator has taken the database.
    """

    def __init__(
        self,
        store: Store,
        evaluate: Evaluate,
        files_of: Callable[[Spec], Awaitable[Sequence[File]]],
        gateway: str,
        *,
        at_once: int,
        now: Callable[[], float],
    ) -> None:
        self.changes = Changes()
        self.progress: dict[str, Progress] = {}
        self.rows = 0  # evaluated since the start
        self.refused: CannotUse | None = None
        self._store = store
        self._evaluate = evaluate
        self._files_of = files_of
        self._gateway = gateway
        self._at_once = at_once
        self._now = now
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held = False  # what runs was started since the database was taken
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()  # who starts or cancels one has it, so that none is in between

    async def run(self) -> None:
        """Start what is queued, until cancelled; first of all what was running when the evaluator ended.

        It ends by itself where another evaluator has taken the database, whose connection had been lost.
        """
        try:
            while True:
                self._wake.clear()
                try:
                    await self._hold()
                    await self._start()
                    await self._woken()
                except CannotUse as error:
                    self.refused = error
                    self.changes.end()
                    return
                except Exception as error:
                    bug = {} if isinstance(error, UNREACHABLE) else {"exc_info": error}
                    log.warning("cannot start evaluations", reason=str(error), again_in_s=RETRY_S, **bug)
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._stop([*self._tasks])

    async def add(self, id: str, spec: Spec) -> Evaluation:
        """Raises: BadRequest: there is no such upload."""
        made = await asyncio.to_thread(self._store.add, id, spec, self._now())
        self._wake.set()
        return made

    async def resume(self, id: str) -> Evaluation:
        """Raises: EvaluationNotFound, EvaluationConflict: it is not paused."""
        moved = await asyncio.to_thread(self._store.move, id, Event.RESUME, self._now(), reason=None)
        self.changes.tell(id)
        self._wake.set()
        return moved

    async def cancel(self, id: str) -> Evaluation:
        """Raises: EvaluationNotFound, EvaluationConflict: it has ended already."""
        async with self._lock:
            moved = await asyncio.to_thread(self._store.move, id, Event.CANCEL, self._now())
            await self._stop([id])
        self.changes.tell(id)
        return moved

    async def remove(self, id: str) -> Upload | None:
        """Forget one, whatever it does; the upload that nothing needs any more.

        Raises:
            EvaluationNotFound.
        """
        async with self._lock:
            with suppress(EvaluationConflict):
                await asyncio.to_thread(self._store.move, id, Event.CANCEL, self._now())
            await self._stop([id])
            upload = await asyncio.to_thread(self._store.remove, id)
        self.changes.tell(id)
        return upload

    async def _hold(self) -> None:
        """Keep other evaluators out; what may have run beside another one is stopped, and begins where it was."""
        if self._held and await asyncio.to_thread(self._store.hold.is_held):
            return
        if self._held:
            self._held = False
            log.warning("database lost", evaluations=len(self._tasks), then="they go on when it is there again")
        async with self._lock:
            await self._stop([*self._tasks])
            await asyncio.to_thread(self._store.hold.take)
            await asyncio.to_thread(self._store.restart, self._now())
        self._held = True

    async def _woken(self) -> None:
        """Wait until there may be one to start, or the database is no longer this evaluator's own."""
        while await asyncio.to_thread(self._store.hold.is_held):
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_S):
                    await self._wake.wait()
                    return

    async def _start(self) -> None:
        async with self._lock:
            while len(self._tasks) < self._at_once:
                found = await asyncio.to_thread(self._store.start_next, self._now())
                if found is None:
                    return
                self._tasks[found.id] = task = asyncio.create_task(self._run(found))
                task.add_done_callback(partial(self._ended, found.id))
                self.changes.tell(found.id)

    async def _stop(self, ids: Sequence[str]) -> None:
        tasks = [self._tasks[id] for id in ids if id in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, evaluation: Evaluation) -> None:
        """Run one until it ends; where this is cancelled, whoever did it has written down why, or it stays running."""
        kept = self._store.kept(evaluation)
        try:
            event, facts = await self._outcome(evaluation, kept)
            if kept.latest is not None:
                told = kept.latest
                facts = {"rows_done": told.rows_done, "rows": told.rows, "rows_per_s": told.rows_per_s, **facts}
            await self._settle(evaluation, event, facts)
        except Exception as error:  # what came of it cannot be written down
            event, reason = outcome_of(error, evaluation.id, begun=True)
            await self._settle(evaluation, event, {"reason": reason})

    async def _settle(self, evaluation: Evaluation, event: Event, facts: Mapping[str, Any]) -> None:
        with suppress(EvaluationConflict, EvaluationNotFound):  # it was cancelled at the same moment
            moved = await self._insist(lambda: self._store.move(evaluation.id, event, self._now(), **facts))
            why = {"reason": moved.reason} if moved.reason else {}
            log.info("evaluation ended", evaluation=moved.id, status=moved.status, **why)

    def _ended(self, id: str, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("evaluation lost until the next start", evaluation=id, exc_info=error)
        if self._tasks.get(id) is task:  # it has not been resumed meanwhile
            del self._tasks[id]
            self.progress.pop(id, None)
        self.changes.tell(id)
        self._wake.set()

    async def _outcome(self, evaluation: Evaluation, kept: KeptParts) -> tuple[Event, Mapping[str, Any]]:
        id = evaluation.id

        def told(progress: Progress) -> None:
            self.rows += max(0, progress.rows_done - (kept.latest.rows_done if kept.latest else evaluation.rows_done))
            kept.latest = self.progress[id] = progress
            self.changes.tell(id)

        log.info("evaluation started", evaluation=id, model=evaluation.model)
        try:
            spec = Spec.model_validate(evaluation.spec)
            files = await self._files_of(spec)
            document = await self._evaluate(spec, files, self._gateway, kept, told, id=id, now=self._now)
        except NoLongerRuns:
            return Event.CANCEL, {}
        except Exception as error:
            event, reason = outcome_of(error, id, begun=kept.latest is not None or evaluation.rows_done > 0)
            return event, {"reason": reason}
        return Event.FINISH, {"document": document.model_dump(mode="json")}

    async def _insist(self, call: Callable[[], Any]) -> Any:
        """What a call to the database gives, however long it cannot be used."""
        while True:
            try:
                return await asyncio.to_thread(call)
            except UNREACHABLE as error:
                log.warning("database", reason=str(error.orig), again_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
