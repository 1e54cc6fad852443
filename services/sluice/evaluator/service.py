"""What clients can do with evaluations and uploads. It does not know HTTP, nor how anything is evaluated."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from sluice.data import File
from sluice.evaluator.document import Document
from sluice.evaluator.jobs.life_cycle import Status
from sluice.evaluator.jobs.runner import Evaluate, Runner
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.jobs.tables import Evaluation, Upload
from sluice.evaluator.roots import Roots
from sluice.evaluator.spec import Spec
from sluice.evaluator.uploads import Uploads
from sluice.policy.errors import BadRequest

log = structlog.get_logger()

EXPIRE_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What an evaluator is made of beyond its jobs.

    `check` raises BadRequest for what is wrong with a spec whatever the model and the data are: a gate that cannot be
    read, say. `reports` are by the name of their format.
    """

    evaluate: Evaluate
    check: Callable[[Spec], object]
    reports: Mapping[str, Callable[[Document], str]]
    roots: Roots
    uploads: Uploads


class Service:
    def __init__(
        self, store: Store, parts: Parts, gateway: str, *, at_once: int, upload_kept_s: float, now: Callable[[], float]
    ) -> None:
        self.store = store
        self.runner = Runner(store, parts.evaluate, self._files_of, gateway, at_once=at_once, now=now)
        self._parts = parts
        self._upload_kept_s = upload_kept_s
        self._now = now
        self._rendering = asyncio.Lock()  # plots are drawn one after another

    async def ask(self, spec: Spec) -> Evaluation:
        """Queue an evaluation.

        Raises:
            BadRequest: what is wrong with it, or there is no such data.
        """
        self._parts.check(spec)
        if spec.data.path is not None:
            await asyncio.to_thread(self._parts.roots.files, spec.data.path)
        return await self.runner.add(secrets.token_hex(8), spec)

    async def get(self, id: str) -> Evaluation:
        """Raises: EvaluationNotFound."""
        return await asyncio.to_thread(self.store.get, id)

    async def newest(self, limit: int, before: int | None, model: str | None) -> Sequence[Evaluation]:
        return await asyncio.to_thread(self.store.newest, limit, before, model)

    async def document(self, id: str) -> Mapping[str, Any]:
        """Raises: EvaluationNotFound, EvaluationConflict: there is none."""
        return await asyncio.to_thread(self.store.document, id)

    async def report(self, id: str, format: str) -> str:
        """Raises: EvaluationNotFound, EvaluationConflict: there is none."""
        document = Document.model_validate(await self.document(id))
        async with self._rendering:
            return await asyncio.to_thread(self._parts.reports[format], document)

    async def remove(self, id: str) -> None:
        """Forget an evaluation, with its values, and its upload if it is the last one of that.

        Raises:
            EvaluationNotFound.
        """
        upload = await self.runner.remove(id)
        if upload is not None:
            await asyncio.to_thread(self._parts.uploads.remove, upload.path)

    async def receive(self, name: str, parts: AsyncIterator[bytes]) -> Upload:
        """Keep a file that a client sends.

        Raises:
            BadRequest, BodyTooLarge: what is wrong with it.
        """
        id = secrets.token_hex(8)
        got = await self._parts.uploads.receive(id, name, parts)
        made = Upload(
            id=id, name=name, path=got.path, bytes=got.bytes, sha256=got.sha256, created_at=self._now()
        )  # fmt: skip
        try:
            await asyncio.to_thread(self.store.add_upload, made)
        except BaseException:
            self._parts.uploads.remove(got.path)
            raise
        return made

    async def expire(self) -> None:
        """Delete the uploads that have been kept for long enough and that no evaluation is of."""
        before = self._now() - self._upload_kept_s
        for upload in await asyncio.to_thread(self.store.remove_unused, before):
            await asyncio.to_thread(self._parts.uploads.remove, upload.path)
            log.info("upload expired", upload=upload.id, bytes=upload.bytes)
        known = await asyncio.to_thread(self.store.upload_paths)
        await asyncio.to_thread(self._parts.uploads.expire, before, known)  # what a killed process left behind

    async def keep_expiring(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.expire()
            except Exception as error:
                log.warning("uploads do not expire", reason=str(error))
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def counts(self) -> Mapping[Status, int]:
        return await asyncio.to_thread(self.store.counts)

    async def _files_of(self, spec: Spec) -> Sequence[File]:
        if spec.data.path is not None:
            return await asyncio.to_thread(self._parts.roots.files, spec.data.path)
        upload = await asyncio.to_thread(self.store.upload, spec.data.upload or "")
        if upload is None:
            raise BadRequest(f"The upload {spec.data.upload!r} is gone. Send the file again, and ask again.")
        files = await asyncio.to_thread(self._parts.uploads.files, upload.path)
        return [replace(file, name=upload.name) for file in files]  # as the client calls it
