"""How far an evaluation is, and where it keeps what it has: the border between the engine and who runs it."""

from dataclasses import dataclass, field
from typing import Protocol

from sluice.evaluator.tasks.task import Values


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

    def keep(self, run: str, number: int, rows: int, values: Values) -> None:
        """Keep the values of a part's rows, all or nothing."""

    def read(self, run: str, number: int) -> Values:
        """What was kept; it is asked for once, when the run is done."""


@dataclass(slots=True)
class InMemory:
    """`Kept` until it is read."""

    parts: dict[tuple[str, int], Values] = field(default_factory=dict)

    def numbers(self, run: str) -> set[int]:
        return {number for name, number in self.parts if name == run}

    def keep(self, run: str, number: int, rows: int, values: Values) -> None:
        self.parts[run, number] = values

    def read(self, run: str, number: int) -> Values:
        return self.parts.pop((run, number))
