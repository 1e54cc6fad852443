"""What a job asks of the engine that evaluates, and what it gives it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from sluice.evaluator.document import Document
from sluice.evaluator.spec import Spec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows are those of all runs: the main one, and those at other batch sizes and of another version."""

    rows_done: int
    rows: int
    rows_per_s: float
    eta_s: float | None


class Kept(Protocol):
    """Where the values of one evaluation's parts are kept. Its calls block; any thread may make them."""

    def numbers(self, run: str) -> set[int]:
        """The parts of a run that are there."""

    def keep(self, run: str, number: int, rows: int, values: Mapping[str, Array]) -> None:
        """Keep the values of a part of `rows` rows: all of it or nothing."""

    def read(self, run: str, number: int) -> Mapping[str, Array]:
        """The values of a part that is there."""


class Evaluate(Protocol):
    """The engine. `told` is called in the event loop; `now` gives seconds since 1970."""

    async def __call__(
        self,
        spec: Spec,
        files: Sequence[Any],
        gateway: str,
        kept: Kept,
        told: Callable[[Progress], None],
        *,
        id: str,
        now: Callable[[], float],
    ) -> Document: ...
