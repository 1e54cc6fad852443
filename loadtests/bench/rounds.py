"""Runs cases round by round, all of them in each round, so that a slow minute of the machine meets them all."""

from collections.abc import Callable, Sequence

from loadtests.bench.cases.doors import Case
from loadtests.bench.report.results import Outcome
from loadtests.bench.stage import Stage
from loadtests.processes import Failed

_WARM_UP_S = 1.0
Told = Callable[[str], None]


def run_rounds(stage: Stage, cases: Sequence[Case], rounds: int, seconds: float, told: Told) -> dict[str, Outcome]:
    """Measure every case once a round, after a short round that does not count; `told` hears of each before it runs.

    A case that fails keeps its reason and is left out from then on.
    """
    outcomes = {case.name: Outcome(case.name, case.group, case.title) for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            outcome = outcomes[case.name]
            told(f"round {number}: {case.title}" if number else f"warming up: {case.title}")
            if outcome.failure is None:
                _measure(stage, case, outcome, seconds if number else _WARM_UP_S, counts=number > 0)
    return outcomes


def _measure(stage: Stage, case: Case, outcome: Outcome, seconds: float, *, counts: bool) -> None:
    try:
        samples = case.measure(stage, seconds)
    except (Failed, OSError) as error:
        outcome.failure = str(error) or type(error).__name__
        return
    if counts:
        outcome.rounds.append(samples)
