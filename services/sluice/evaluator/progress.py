"""How far an evaluation is, and where it keeps what it has: the border between the engine and who runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sluice.evaluator.tasks.task import Array


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
