"""An engine that does as many parts as the test tells it to, and an evaluator around it in this loop."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from sqlalchemy import Engine

from sluice.evaluator.document import DataFacts, Document, Gate, Metric, Run
from sluice.evaluator.http.app import create_app
from sluice.evaluator.jobs.database import opened
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.progress import Progress
from sluice.evaluator.roots import Roots
from sluice.evaluator.service import Parts, Service
from sluice.evaluator.spec import Spec
from sluice.evaluator.uploads import Uploads
from sluice.policy.errors import BadRequest

PATIENCE_S = 10.0
PARTS, ROWS = 4, 10
SPEC = {"model": "digits", "task": "classification", "data": {"path": "a.csv"}}


class Puppet:
    """Evaluates data of four parts. Each waits until the test tells to `do` one, or to `fail`."""

    def __init__(self) -> None:
        self.begun: list[str] = []  # the models of evaluations, as they start
        self.asked: list[tuple[str, int]] = []  # model and number of each part that was not kept
        self.given: list[Any] = []  # the files
        self.running = 0
        self._told: dict[str, asyncio.Queue[Exception | None]] = defaultdict(asyncio.Queue)

    def do(self, parts: int = PARTS, model: str = "digits") -> None:
        for _ in range(parts):
            self._told[model].put_nowait(None)

    def fail(self, error: Exception, model: str = "digits") -> None:
        self._told[model].put_nowait(error)

    async def evaluate(self, spec, files, gateway, kept, told, *, id, now) -> Document:
        self.begun.append(spec.model)
        self.given.append(files)
        self.running += 1
        try:
            there = await asyncio.to_thread(kept.numbers, "main")
            for number in sorted({*range(PARTS)} - there):
                self.asked.append((spec.model, number))
                error = await self._told[spec.model].get()
                if error is not None:
                    raise error
                values = {"y": number * ROWS + np.arange(ROWS, dtype=np.float32)}
                await asyncio.to_thread(kept.keep, "main", number, ROWS, values)
                there = there | {number}
                done = len(there) * ROWS
                told(Progress(done, PARTS * ROWS, 100.0, (PARTS * ROWS - done) / 100))
            values = [await asyncio.to_thread(kept.read, "main", number) for number in range(PARTS)]
        finally:
            self.running -= 1
        mean = float(np.concatenate([each["y"] for each in values]).mean())
        return document(id, spec, mean)


def document(id: str, spec: Any, mean: float) -> Document:
    return Document(
        model=spec.model, version=1, summary="ten digits", task=spec.task,
        data=DataFacts(source="a.csv", sha256="0" * 64, rows=PARTS * ROWS, bytes=1),
        spec=spec.model_dump(mode="json"),
        metrics={"mean": Metric(value=mean, better="higher", note='<img src=x onerror="alert(1)">')},
        gates=tuple(Gate(text=text, found="19.5", failed=True) for text in spec.fail_if),
        run=Run(evaluation=id, began_at="2026-01-01T00:00:00Z", seconds=1.0, rows_per_s=40.0),
    )  # fmt: skip


def check(spec: Spec) -> None:
    for text in spec.fail_if:
        if "<" not in text:
            raise BadRequest(f"A condition is METRIC < NUMBER; got {text!r}.")


def parts_of(puppet: Puppet, folder: Path) -> Parts:
    """Uploads go to the folder, and beside it there is a file that may be read."""
    reports: dict[str, Callable[[Document], str]] = {
        "md": lambda document: f"# {document.model}",
        "html": lambda document: f"<h1>{document.model}</h1>",
    }
    data = folder.parent / "data"
    data.mkdir(exist_ok=True)
    (data / "a.csv").write_text("x,label\n1,2\n")
    uploads = Uploads(folder, upload_bytes=1 << 20, uploads_bytes=1 << 24)
    return Parts(puppet.evaluate, check, reports, Roots((data,)), uploads)


@dataclass
class Here:
    puppet: Puppet
    app: FastAPI
    http: httpx.AsyncClient
    database: Engine
    time: float = 1000.0
    reached: Exception | None = None

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    async def ask(self, **more: Any) -> str:
        answer = await self.http.post("/v1/evaluations", json=SPEC | more)
        assert answer.status_code == 202, answer.text
        assert answer.json().keys() == {"evaluation", "status"}
        return str(answer.json()["evaluation"])

    async def get(self, id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/evaluations/{id}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def until(self, id: str, **wanted: Any) -> dict[str, Any]:
        """Wait until the evaluation looks so; how it looks."""
        with self.service.runner.changes.of(id) as changed:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    changed.clear()
                    found = await self.get(id)
                    if wanted.items() <= found.items():
                        return found
                    await changed.wait()


@asynccontextmanager
async def running(
    folder: Path,
    puppet: Puppet | None = None,
    at_once: int = 1,
    parts: Parts | None = None,
    gateway: str = "http://gateway",
    database: str = "",
) -> AsyncIterator[Here]:
    """An evaluator, until it is stopped as by SIGTERM; on a database in the folder, and with a puppet's `parts`."""
    puppet = puppet or Puppet()

    async def reach() -> None:
        if here.reached is not None:
            raise here.reached

    with opened(database or f"sqlite:///{folder}/evaluations.db") as its:
        service = Service(
            Store(its), parts or parts_of(puppet, folder / "uploads"), gateway,
            at_once=at_once, upload_kept_s=100.0, now=lambda: here.time,
        )  # fmt: skip
        app = create_app(service, gateway, reach)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://evaluator") as http:
            here = Here(puppet, app, http, its.engine)
            with threads_end():
                async with app.router.lifespan_context(app):
                    yield here


@contextmanager
def threads_end() -> Iterator[None]:
    """Threads that a loop has begun meanwhile are waited for, as `asyncio.run` does at its end."""
    loop = asyncio.get_running_loop()
    try:
        with ThreadPoolExecutor() as executor:
            loop.set_default_executor(executor)
            yield
    finally:
        loop.set_default_executor(ThreadPoolExecutor())


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error, which must be whole."""
    assert answer.status_code == status, answer.text
    assert answer.headers["sluice-code"] == code
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body.keys() <= {"error", "code", "details"}
    assert body["code"] == code
    sentence: str = body["error"]
    return sentence
