"""Evaluations of a model that doubles, in a gateway that runs in this process; what is kept of them, and the time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sluice.data import files_of
from sluice.evaluator.document import Document
from sluice.evaluator.evaluation import evaluate
from sluice.evaluator.progress import InMemory
from sluice.evaluator.spec import Spec
from sluice.evaluator.tasks.task import Values

ROWS = 2500


class Killed(BaseException):
    pass


@dataclass
class Kept(InMemory):
    """Values of parts in memory; after `limit` more of them the evaluator ends."""

    limit: int | None = None

    def keep(self, run: str, number: int, rows: int, values: Values) -> None:
        if self.limit == 0:
            raise Killed
        self.limit = None if self.limit is None else self.limit - 1
        assert (run, number) not in self.parts
        assert {len(each) for each in values.values()} == {rows}
        super().keep(run, number, rows, values)

    def read(self, run: str, number: int) -> Values:
        return self.parts[run, number]  # and it stays, for who goes on


class Clock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def made_up() -> dict[str, Any]:
    """Rows for the model, with labels that are about twice as much."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 2)).astype(np.float32)
    labels = (2 * x + rng.normal(scale=0.1, size=x.shape)).astype(np.float32)
    group = np.where(np.arange(ROWS) % 3 == 0, "thirds", "<img onerror=alert(1)>")
    return {"x": x, "label": labels, "group": group, "weight": rng.integers(0, 3, ROWS).astype(np.float64)}


class Evaluations:
    """Evaluates the rows of a file by the gateway at this URL."""

    def __init__(self, url: str, file: Path) -> None:
        self._url, self._file = url, file

    def of(self, file: Path) -> "Evaluations":
        """Those of another file."""
        return Evaluations(self._url, file)

    async def __call__(self, kept: Kept | None = None, told: Any = lambda _: None, **fields: Any) -> Document:
        """Fields of the spec, and `engine`."""
        engine = {"engine": fields.pop("engine")} if "engine" in fields else {}
        spec = {"model": "plain", "data": {"path": "rows.npz"}, "task": "regression", "options": {"resamples": 100}}
        return await evaluate(
            Spec.model_validate(spec | fields), files_of(self._file), self._url, kept or Kept(), told, id="e",
            now=Clock(), **engine,
        )  # fmt: skip


def but_for_the_run(document: Document) -> str:
    """All of it that is the same whenever the same is evaluated with batches of one shape."""
    return document.model_copy(update={"run": None}).model_dump_json()
