"""One run of a load test from its start to its end: recorded, held to budgets, put on a page and into the history."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from locust.env import Environment

from loadtests.locust import summary
from loadtests.locust.outcomes import Wrong, WrongAnswers
from loadtests.locust.recording import Recording, Run
from loadtests.locust.scenarios import SCENARIOS
from loadtests.report import budgets, history
from loadtests.report.budgets import ALL, Budget, Verdict
from loadtests.report.history import Entry

PROGRAM = "loadtest"
_SHORT_S = 1.0  # so much less than its length, and a run was stopped before its time


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be, and is held to.

    Attributes:
        load: in words; runs of the same load can be compared.
        length_s: None if it lasts until somebody stops it.
        budgets: what it is held to.
        notes: what a reader of its page has to know.
        out: the folder that gets the page and the history.
        files: what else is written of it, and what that is.
    """

    load: str
    length_s: float | None
    budgets: Sequence[Budget]
    notes: Sequence[str]
    out: Path
    files: Mapping[Path, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a run: whether its budgets were kept, the first wrong answers, and its page."""

    verdicts: Sequence[Verdict]
    wrong: Sequence[Wrong]
    page: Path

    @property
    def failed(self) -> bool:
        return bool(self.wrong) or not all(verdict.kept for verdict in self.verdicts)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.wrong), budgets.sentence(self.verdicts), f"The page of it: {self.page}"])


class Trial:
    """A run that goes on, in the process that leads it."""

    def __init__(self, environment: Environment, wrong: WrongAnswers, plan: Plan) -> None:
        self._url, self._wrong, self._plan = environment.host or "", wrong, plan
        self._recording = Recording(environment, self._url)
        self._recording.start()

    def finish(self) -> Finding:
        """Write the page. Call it once, when the last answers are counted."""
        run, plan, wrong = self._recording.stop(), self._plan, tuple(self._wrong.first)
        whole = plan.length_s is None or run.seconds > plan.length_s - _SHORT_S
        verdicts = budgets.judge(plan.budgets, run.figures, set(SCENARIOS) - run.figures.keys())
        earlier = [each for each in history.read(plan.out / history.FILE) if each.program == PROGRAM]
        told = summary.Told(
            plan.load,
            self._url,
            verdicts,
            wrong,
            notes=[*plan.notes, *([] if whole else ["It was stopped before its time."])],
            files={os.path.relpath(file, plan.out): text for file, text in plan.files.items() if file.exists()},
            history=earlier,
        )
        page = summary.write(plan.out, run, told)
        if whole:
            history.append(plan.out / history.FILE, [*_entries(run, plan.load)])
        return Finding(verdicts, wrong, page)


def _entries(run: Run, load: str) -> Iterator[Entry]:
    commit, cpus = history.commit(), history.cpus()
    for name, found in run.figures.items():
        p50_ms, p99_ms, max_ms = (1000 * found[figure] if figure in found else None for figure in ("p50", "p99", "max"))
        yield Entry(
            PROGRAM,
            load,
            name,
            requests=int(found["requests"]),
            failures=sum(failed.count for failed in run.failures if name in (failed.scenario, ALL)),
            wrong_answers=int(found.get("wrong_answers", 0)),
            rate_per_s=found["rate"],
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            max_ms=max_ms,
            began_at=run.began_at,
            commit=commit,
            cpus=cpus,
        )
