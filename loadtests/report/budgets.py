"""Budgets: what a run is held to, read from YAML, and whether it was kept.

It does not know how figures are found. The file has sections, and a run is held to one of them. In a section stand
`all` and scenarios, by the name that Locust shows, and what bounds each:

    loadtest:
      all: {errors: 0.1 %, wrong_answers: 0}
      step over HTTP: {p99: 50 ms, rate: 100 per second}
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.report.quantities import Kind, quantity, written
from sluice.evaluator.document import Table

SECTIONS = ("loadtest", "soak")
ALL = "all"


class BudgetsRefused(ValueError):
    """The file says something that is no budget: where, what was expected, and what came."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What can be bounded; `at_least`: from below."""

    kind: Kind
    at_least: bool = False


FIGURES = {
    **dict.fromkeys(("p50", "p90", "p95", "p99", "p99.9", "max"), Figure("duration")),
    "requests": Figure("count", at_least=True),
    "rate": Figure("rate", at_least=True),
    "errors": Figure("share"),  # requests that failed, for whatever reason
    "wrong_answers": Figure("count"),
    "sessions_lost": Figure("count"),
    "refused": Figure("share"),
    "unreachable": Figure("share"),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """One figure of `all` or of a scenario, and its bound: in seconds, per second, or a fraction."""

    scope: str
    figure: str
    limit: float

    @property
    def bounded(self) -> Figure:
        return FIGURES[self.figure]

    def __str__(self) -> str:
        words = self.figure.replace("_", " ")
        return f"{words} {'≥' if self.bounded.at_least else '≤'} {written(self.limit, self.bounded.kind)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a budget was kept; one of which nothing was measured was not."""

    budget: Budget
    found: float | None

    @property
    def kept(self) -> bool:
        if self.found is None:
            return False
        limit = self.budget.limit
        return self.found >= limit if self.budget.bounded.at_least else self.found <= limit

    @property
    def told(self) -> str:
        return "nothing measured" if self.found is None else written(self.found, self.budget.bounded.kind)

    def __str__(self) -> str:
        return f"{self.budget.scope}: {self.budget}, found {self.told}"


def read_budgets(file: Path, section: str, scenarios: Collection[str]) -> tuple[Budget, ...]:
    """The budgets of a section. All sections must be right, and name no scenario but these.

    Raises:
        BudgetsRefused: it cannot be read, or says something else; the sentence names what there is.
    """
    try:
        document = yaml.load(file.read_bytes(), _Loader)  # noqa: S506 - a loader that is safe, and refuses more
    except OSError as error:
        raise BudgetsRefused(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BudgetsRefused(f"{file}: expected YAML; {' '.join(str(error).split())}") from None
    try:
        sections = _table(document or {}, SECTIONS, "section", "the file")
        parsed = {name: tuple(_section(name, table, scenarios)) for name, table in sections.items()}
    except ValueError as error:
        raise BudgetsRefused(f"{file}: {error}") from None
    return parsed.get(section, ())


def judge(
    budgets: Sequence[Budget], found: Mapping[str, Mapping[str, float]], left_out: Collection[str] = ()
) -> list[Verdict]:
    """What was found of each budget, by scope and figure; scenarios that were left out are not judged."""
    return [
        Verdict(budget, found.get(budget.scope, {}).get(budget.figure))
        for budget in budgets
        if budget.scope not in left_out
    ]


def sentence(verdicts: Sequence[Verdict]) -> str:
    """In a sentence, whether all budgets were kept."""
    broken = [verdict for verdict in verdicts if not verdict.kept]
    if broken:
        return f"{len(broken)} of {len(verdicts)} budgets broken: {'; '.join(map(str, broken))}."
    return f"All {len(verdicts)} budgets kept." if verdicts else "No budgets."


def table(verdicts: Sequence[Verdict]) -> Table:
    """The broken ones first."""
    rows = tuple(
        ("✓" if each.kept else "✗", each.budget.scope, _unbroken(str(each.budget)), _unbroken(each.told))
        for each in sorted(verdicts, key=lambda verdict: verdict.kept)
    )
    return Table(title="Budgets", columns=("", "scenario", "budget", "found"), rows=rows)


def _unbroken(text: str) -> str:
    """On one line, however narrow the page is."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _section(section: str, scopes: object, scenarios: Collection[str]) -> list[Budget]:
    budgets = []
    for scope, figures in _table(scopes, (ALL, *scenarios), "scenario", section).items():
        for figure, limit in _table(figures, FIGURES, "figure", f"{section}, {scope}").items():
            try:
                budgets.append(Budget(scope, figure, quantity(limit, FIGURES[figure].kind)))
            except ValueError as error:
                raise ValueError(f"{section}, {scope}, {figure}: {error}") from None
    return budgets


def _table(found: object, known: Collection[str], what: str, where: str) -> Mapping[str, Any]:
    """A mapping with no other keys than these."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: expected a {what} for each key ({', '.join(known)}), got {found!r:.80}")  # noqa: TRY004 - of a file, not of code
    if unknown := [key for key in found if key not in known]:
        raise ValueError(f"{where}: no {what} is called {unknown[0]!r:.80}; there are {', '.join(known)}")
    return found


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice; YAML would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
