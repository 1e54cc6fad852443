"""The process that leads a load test, a master or one that runs alone: what it checks before, and makes of each run."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import gevent
import psutil
from gevent.lock import RLock
from locust import log as locust_log
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING

from loadtests.locust import options, progress
from loadtests.locust.choice import leave_out
from loadtests.locust.load_shape import LENGTH_S, Load
from loadtests.locust.outcomes import WrongAnswers
from loadtests.locust.readiness import NotReady
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.shapes import SHAPES
from loadtests.locust.trial import Finding, Plan, Trial
from loadtests.report.budgets import BudgetsRefused, read_budgets
from loadtests.report.history import FILE, HistoryRefused, elsewhere, ready
from loadtests.traffic.library import NoTraffic

FAILED, WRONG_USAGE, NOT_REACHABLE = 1, 2, 3
_CSV = ("stats", "stats_history", "failures", "exceptions")  # what Locust writes with --csv


class Lead:
    """Prepares a load test, which can exit, and follows Locust's events from then on."""

    def __init__(self, environment: Environment, wrong: WrongAnswers) -> None:
        self._environment, self._wrong = environment, wrong
        self._given: Any = environment.parsed_options
        self._trial: Trial | None = None
        self._finding: Finding | None = None
        self._every = sorted(environment.available_user_classes or ())
        self._progress: gevent.Greenlet | None = None
        self._ending = RLock()
        self.interrupted = False  # by Ctrl-C, which ends workers, too
        try:
            self._budgets = read_budgets(Path(self._given.budgets), self._section, SCENARIOS)
            ready(Path(self._given.out) / FILE)
            self._set_load()
            self._left_out = leave_out(environment)
        except (BudgetsRefused, HistoryRefused, NoTraffic) as error:
            _exit(WRONG_USAGE, error)
        except NotReady as error:
            _exit(NOT_REACHABLE, error)
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.quitting.add_listener(self._end)
        environment.events.quit.add_listener(self._say)

    @property
    def _section(self) -> str:
        """Of the budgets."""
        return "soak" if self._given.shape == "soak" else "loadtest"

    def _set_load(self) -> None:
        environment, given = self._environment, self._given
        given.num_users = given.num_users or options.USERS
        given.spawn_rate = given.spawn_rate or options.SPAWN_RATE
        environment.host = (environment.host or options.HOST).rstrip("/")
        environment.available_shape_classes = {name: Load(shape) for name, shape in SHAPES.items()}
        if given.shape != options.NO_SHAPE:
            environment.shape_class = environment.available_shape_classes[given.shape]
            environment.shape_class.runner = environment.runner

    def _start(self, **_: Any) -> None:
        environment, given = self._environment, self._given
        length_s = given.run_time or (LENGTH_S if environment.shape_class else None)
        self._trial = Trial(environment, self._wrong, self._plan(length_s))
        if given.headless and given.only_summary:
            self._progress = progress.show(environment.runner, length_s)

    def _plan(self, length_s: float | None) -> Plan:
        given = self._given
        files = {Path(given.html_file): "Locust's own report"} if given.html_file else {}
        if given.csv_prefix:
            files |= {Path(f"{given.csv_prefix}_{name}.csv"): f"Locust's {name}" for name in _CSV}
        notes = [f"{name} was left out: {lack}." for name, lack in self._left_out.items()]
        return Plan(self._load(length_s), length_s, self._budgets, notes, Path(given.out), files)

    def _load(self, length_s: float | None) -> str:
        """The load in words."""
        environment, given = self._environment, self._given
        shapes = environment.available_shape_classes or {}
        shape = next((f"{name} of " for name, each in shapes.items() if each is environment.shape_class), "")
        words = [f"{shape}{given.num_users} users" + (f" for {length_s:g} s" if length_s else "")]
        words.append(f"waiting {given.wait:g} s on average" if given.wait else "without waiting")
        if (processes := environment.runner.worker_count) > 1:
            words.append(f"from {processes} processes")
        running = sorted(user.__name__ for user in environment.user_classes)
        others = sorted({*self._every} - {*running})
        if others:
            few = len(running) < len(others)
            words.append(f"only {', '.join(running)}" if few else f"without {', '.join(others)}")
        words += [f"tagged {' or '.join(given.tags)}"] if given.tags else []
        words += [f"not tagged {' or '.join(given.exclude_tags)}"] if given.exclude_tags else []
        return ", ".join(filter(None, [*words, elsewhere(environment.host or "")]))

    def _stop(self, **_: Any) -> None:
        if self._trial:
            self._trial.over()
        if self._environment.web_ui:  # otherwise the last answers of workers are still to come
            self._finish()
            self._tell()

    def _end(self, **_: Any) -> None:
        runner = self._environment.runner
        with self._ending:  # Locust ends twice at SIGTERM, which must wait for the page
            if runner.state in (STATE_SPAWNING, STATE_RUNNING):  # somebody stops Locust in the middle
                self._environment.stop_timeout = 0.0
                runner.stop()
            self._finish()

    def _finish(self) -> None:
        trial, self._trial = self._trial, None
        if trial is None:
            return
        if self._progress:
            self._progress.kill()
        self._finding = trial.finish(interrupted=self.interrupted)
        if self._finding.failed or self._environment.runner.exceptions:
            self._environment.process_exit_code = FAILED
        elif not locust_log.unhandled_greenlet_exception:
            self._environment.process_exit_code = 0

    def _say(self, **_: Any) -> None:
        """After Locust's tables."""
        if not self._environment.web_ui:
            self._tell()

    def _tell(self) -> None:
        if self._finding:
            sys.stdout.write(f"{self._finding}\n")


def _exit(code: int, error: Exception) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    for worker in psutil.Process().children():  # those of --processes, which Locust would leave to themselves
        worker.terminate()
    sys.exit(code)
