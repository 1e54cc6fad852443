"""The process that leads a load test, a master or one that runs alone: what it checks before, and makes of each run."""

import logging
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import gevent
import psutil
from locust import log as locust_log
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING

from loadtests.locust import options, progress
from loadtests.locust.load_shape import LENGTH_S, Load
from loadtests.locust.outcomes import WrongAnswers
from loadtests.locust.readiness import NotReady, Served
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.shapes import SHAPES
from loadtests.locust.trial import Finding, Plan, Trial
from loadtests.processes import python
from loadtests.report.budgets import BudgetsRefused, read_budgets
from loadtests.report.history import FILE, HistoryRefused
from loadtests.report.history import read as read_history
from loadtests.traffic.library import file_of

FAILED, WRONG_USAGE, NOT_REACHABLE = 1, 2, 3
_CSV = ("stats", "stats_history", "failures", "exceptions")  # what Locust writes with --csv

log = logging.getLogger(__name__)


class Lead:
    """Prepares a load test, which can exit, and follows Locust's events from then on."""

    def __init__(self, environment: Environment, wrong: WrongAnswers) -> None:
        self._environment, self._wrong = environment, wrong
        self._given: Any = environment.parsed_options
        self._trial: Trial | None = None
        self._finding: Finding | None = None
        self._every = sorted(environment.available_user_classes or ())
        self._progress: gevent.Greenlet | None = None
        try:
            self._budgets = read_budgets(Path(self._given.budgets), self._section, SCENARIOS)
            read_history(Path(self._given.out) / FILE)
            self._set_load()
            self._left_out = self._leave_out()
        except (BudgetsRefused, HistoryRefused) as error:
            _exit(WRONG_USAGE, error)
        except NotReady as error:
            _exit(NOT_REACHABLE, error)
        for event in ("test_start", "test_stop", "quitting", "quit"):
            getattr(environment.events, event).add_listener(getattr(self, f"_{event}"))

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

    def _leave_out(self) -> Mapping[str, str]:
        """Leave out users that no tag asks for, and those that the gateway lacks something for; these, and why.

        Raises:
            NotReady: the gateway is, or nobody is left; or somebody is left out and that is not wanted.
        """
        environment, given = self._environment, self._given
        assert environment.host is not None
        served = Served(environment.host, options.grpc_address(environment.host, given.grpc))
        _make_traffic(given)
        asked = {user: tags for user in environment.user_classes if (tags := _tags(user, given))}
        lacks = {user: served.lack(user.models, tags) or _unknown(user.models, given) for user, tags in asked.items()}
        left_out = {user.__name__: lack for user, lack in lacks.items() if lack}
        for name, lack in left_out.items():
            if given.missing == options.FAIL:
                raise NotReady(f"{name} cannot run: {lack}")
            log.warning("%s is left out: %s", name, lack)
        environment.user_classes = [user for user, lack in lacks.items() if not lack]
        environment.available_user_classes = {user.__name__: user for user in environment.user_classes}
        if not environment.user_classes:
            raise NotReady(f"expected at least one user that can run against {environment.host}; there is none")
        return left_out

    def _test_start(self, **_: Any) -> None:
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
        return ", ".join(words)

    def _test_stop(self, **_: Any) -> None:
        if self._environment.web_ui:  # otherwise the last answers of workers are still to come
            self._finish()
            self._tell()

    def _quitting(self, **_: Any) -> None:
        runner = self._environment.runner
        if runner.state in (STATE_SPAWNING, STATE_RUNNING):  # somebody stops Locust in the middle
            self._environment.stop_timeout = 0.0
            runner.quit()
        self._finish()

    def _finish(self) -> None:
        trial, self._trial = self._trial, None
        if trial is None:
            return
        if self._progress:
            self._progress.kill()
        self._finding = trial.finish()
        if self._finding.failed or self._environment.runner.exceptions:
            self._environment.process_exit_code = FAILED
        elif not locust_log.unhandled_greenlet_exception:
            self._environment.process_exit_code = 0

    def _quit(self, **_: Any) -> None:
        """After Locust's tables."""
        if not self._environment.web_ui:
            self._tell()

    def _tell(self) -> None:
        if self._finding:
            sys.stdout.write(f"{self._finding}\n")


def _tags(user: Any, given: Any) -> set[str]:
    """Of the tasks that --tags and --exclude-tags leave."""
    tags = [task.locust_tag_set for task in user.tasks]
    wanted, unwanted = set(given.tags or ()), set(given.exclude_tags or ())
    return set().union(*(each for each in tags if (not wanted or each & wanted) and not each & unwanted))


def _unknown(models: Iterable[str], given: Any) -> str:
    missing = [model for model in models if not file_of(Path(given.traffic), model).is_file()]
    return f"nobody knows what {missing[0]} should answer, which is not in {given.models}" if missing else ""


def _make_traffic(given: Any) -> None:
    """Have Keras answer the load where it has not; in a process of its own, as TensorFlow is large."""
    command = python("loadtests.traffic", "--models", given.models, "--out", given.traffic)
    done = subprocess.run(command, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        _exit(WRONG_USAGE)  # it has said why


def _exit(code: int, error: Exception | None = None) -> NoReturn:
    if error:
        sys.stderr.write(f"{error}\n")
    for worker in psutil.Process().children():  # those of --processes, which Locust would leave to themselves
        worker.terminate()
    sys.exit(code)
