"""What is made of a run when it is over: which budgets are judged, what counts as whole, and what the history gets."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.locust import trial
from loadtests.locust.scenarios import CLOSE, ROWS, STEP
from loadtests.locust.trial import Finding, Plan, Trial
from loadtests.report.budgets import ALL, Budget
from loadtests.report.history import FILE, append, read
from tests.loadtests.test_locust_summary import BRIEF, figures

BUDGETS = [Budget(ALL, "errors", 0.1), Budget(STEP, "p99", 0.05), Budget(CLOSE, "p99", 0.05)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of trials, which record a run of which only rows were counted."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: clock.now))
    run = replace(BRIEF, figures={ROWS: figures(), ALL: figures()}, failures=[])
    recording = SimpleNamespace(start=lambda: None, stop=lambda: run)
    monkeypatch.setattr(trial, "Recording", lambda *_: recording)
    return clock


def finished(
    out: Path, clock: Any, users: dict[str, int], *, after_s: float = 60.0, left: int = 2, interrupted: bool = False
) -> Finding:
    """A run of a minute, shared by two workers, of which `left` are left when it is over."""
    runner = SimpleNamespace(worker_count=2, final_user_classes_count=users)
    environment: Any = SimpleNamespace(host="http://127.0.0.1:8080", runner=runner)
    wrong: Any = SimpleNamespace(first=[])
    tried = Trial(environment, wrong, Plan("20 users", 60.0, BUDGETS, [], out, {}))
    clock.now += after_s
    runner.worker_count = left
    tried.over()
    clock.now += 60.0  # while Locust waits for what is not there
    return tried.finish(interrupted=interrupted)


def test_a_scenario_whose_user_was_there_and_that_was_never_counted_breaks_its_budget(
    tmp_path: Path, clock: Any
) -> None:
    found = finished(tmp_path, clock, {"RowsUser": 3, "SessionUser": 2})
    assert [str(each) for each in found.verdicts if not each.kept] == [f"{STEP}: p99 ≤ 50 ms, found nothing measured"]
    assert found.failed


def test_a_scenario_whose_user_was_not_there_is_not_judged(tmp_path: Path, clock: Any) -> None:
    found = finished(tmp_path, clock, {"RowsUser": 3, "SessionUser": 0})
    assert [each.budget.scope for each in found.verdicts] == [ALL]
    assert not found.failed
    assert {each.scenario for each in read(tmp_path / FILE)} == {ROWS, ALL}


@pytest.mark.parametrize("left", [1, 0])
def test_a_run_that_lost_workers_failed_and_is_compared_with_none(tmp_path: Path, clock: Any, left: int) -> None:
    found = finished(tmp_path, clock, {"RowsUser": 3}, after_s=60.0 if left else 5.0, left=left)
    assert found.failed
    assert f"{2 - left} of 2 workers were lost" in str(found)
    assert f"{2 - left} of 2 workers were lost" in found.page.read_text()
    assert not read(tmp_path / FILE)


def test_a_run_that_was_interrupted_is_judged_by_what_was_counted(tmp_path: Path, clock: Any) -> None:
    found = finished(tmp_path, clock, {"SessionUser": 2}, after_s=5.0, left=0, interrupted=True)
    assert not found.failed
    assert "stopped before its time" in found.page.read_text()
    assert not read(tmp_path / FILE)


def test_a_run_is_compared_with_those_on_as_many_processors(tmp_path: Path, clock: Any) -> None:
    finished(tmp_path, clock, {"RowsUser": 3})
    [entry] = [each for each in read(tmp_path / FILE) if each.scenario == ALL]
    append(tmp_path / FILE, [replace(entry, cpus=entry.cpus + 1, commit="of-another")])
    page = finished(tmp_path, clock, {"RowsUser": 3}).page.read_text()
    assert "Earlier runs of this kind" in page
    assert "of-another" not in page
