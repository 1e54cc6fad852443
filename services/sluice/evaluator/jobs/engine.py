"""The engine that a job is given to."""

from collections.abc import Callable, Sequence
from typing import Protocol

from sluice.data import File
from sluice.evaluator.document import Document
from sluice.evaluator.progress import Kept, Progress
from sluice.evaluator.spec import Spec


class Evaluate(Protocol):
    """As `sluice.evaluator.evaluation.evaluate`; `told` is called in the event loop."""

    async def __call__(
        self,
        spec: Spec,
        files: Sequence[File],
        gateway: str,
        kept: Kept,
        told: Callable[[Progress], None],
        *,
        id: str,
        now: Callable[[], float],
    ) -> Document: ...
