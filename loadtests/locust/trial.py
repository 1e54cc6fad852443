"""One run of a load test from its start to its end: recorded, held to budgets, put on a page and into the history."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.locust import summary
from loadtests.locust.outcomes import Wrong, WrongAnswers
from loadtests.locust.recording import Recording, Run
from loadtests.locust.scenarios import SCENARIOS, asked
from loadtests.report import budgets, history
from loadtests.report.budgets import ALL, Budget, Verdict
from loadtests.report.history import Entry

if TYPE_CHECKING:
    from locust.env import Environment

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
    """What came of a run: its budgets, the first wrong answers, what was lost of the load itself, and its page."""

    verdicts: Sequence[Verdict]
    wrong: Sequence[Wrong]
    lost: str
    page: Path

    @property
    def failed(self) -> bool:
        return bool(self.wrong or self.lost) or not all(verdict.kept for verdict in self.verdicts)

    def __str__(self) -> str:
        words = [*map(str, self.wrong), self.lost, budgets.sentence(self.verdicts), f"The page of it: {self.page}"]
        return "\n".join(filter(None, words))


class Trial:
    """A run that goes on, in the process that leads it."""

    def __init__(self, environment: "Environment", wrong: WrongAnswers, plan: Plan) -> None:
        self._url, self._wrong, self._plan = environment.host or "", wrong, plan
        self._runner: Any = environment.runner
        self._processes = self._left = self._runner.worker_count
        self._seconds: float | None = None
        self._recording, self._began = Recording(environment, self._url), time.monotonic()
        self._recording.start()

    def over(self) -> None:
        """There are no more requests. Locust stops by itself when its last worker is gone."""
        self._left, self._seconds = self._runner.worker_count, time.monotonic() - self._began

    def finish(self, *, interrupted: bool) -> Finding:
        """Write the page. Call it once, when the last answers are counted; `interrupted` by whoever wants no more."""
        run, plan, wrong = self._recording.stop(), self._plan, tuple(self._wrong.first)
        seconds = time.monotonic() - self._began if self._seconds is None else self._seconds
        in_time = plan.length_s is None or seconds > plan.length_s - _SHORT_S
        lost = "" if interrupted else self._lost()
        notes = [*plan.notes, *filter(None, [lost, "" if in_time else "It was stopped before its time."])]
        whole = in_time and not lost
        there = [name for name, users in self._runner.final_user_classes_count.items() if users and whole]
        verdicts = budgets.judge(plan.budgets, run.figures, set(SCENARIOS) - run.figures.keys() - asked(there))
        cpus = history.cpus()
        earlier = [
            each for each in history.read(plan.out / history.FILE) if (each.program, each.cpus) == (PROGRAM, cpus)
        ]
        told = summary.Told(
            plan.load,
            self._url,
            verdicts,
            wrong,
            notes=notes,
            files={os.path.relpath(file, plan.out): text for file, text in plan.files.items() if file.exists()},
            history=earlier,
        )
        page = summary.write(plan.out, run, told)
        if whole:
            history.append(plan.out / history.FILE, [*_entries(run, plan.load)])
        return Finding(verdicts, wrong, lost, page)

    def _lost(self) -> str:
        """What was lost of the load itself, in a sentence."""
        if self._left >= self._processes:
            return ""
        return (
            f"{self._processes - self._left} of {self._processes} workers were lost, and with each what it had not "
            "told yet: the load was not the one that was asked for."
        )


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
