"""What a run has measured: figures by case and round, and what is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Sample = Mapping[str, float]  # figures of one measurement, by name


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(slots=True)
class Outcome:
    """The measurements of one case, round by round; why it failed, if it did."""

    name: str
    group: str
    title: str
    rounds: list[list[Sample]] = field(default_factory=list)
    failure: str | None = None

    def by_round(self, figure: str) -> list[float]:
        """One value a round: the median of the round's measurements; empty if the case has failed."""
        if self.failure is not None:
            return []
        return [median(sample[figure] for sample in samples) for samples in self.rounds if figure in samples[0]]

    def spread(self, figure: str) -> Spread | None:
        """Over all measurements of all rounds; None if there are none."""
        if self.failure is not None:
            return None
        values = [sample[figure] for samples in self.rounds for sample in samples if figure in sample]
        return Spread.of(values) if values else None

    def figure(self, name: str) -> float | None:
        """The median of a figure, if it was measured."""
        spread = self.spread(name)
        return spread.median if spread else None

    def document(self) -> dict[str, Any]:
        """For the JSON file."""
        figures = list(dict.fromkeys(name for samples in self.rounds for sample in samples for name in sample))
        spreads = {name: spread for name in figures if (spread := self.spread(name))}
        return {
            "name": self.name,
            "group": self.group,
            "title": self.title,
            "failure": self.failure,
            "rounds": [[dict(sample) for sample in samples] for samples in self.rounds],
            "median": {name: spread.median for name, spread in spreads.items()},
            "least": {name: spread.least for name, spread in spreads.items()},
            "most": {name: spread.most for name, spread in spreads.items()},
        }


Outcomes = Mapping[str, Outcome]
