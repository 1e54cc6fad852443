"""Clients of sessions over HTTP: a session each, from its first month to the last, through whatever happens to it."""

from locust import tag, task

from loadtests.locust.outcomes import Failure, SessionLost, WrongAnswer
from loadtests.locust.scenarios import CLOSE, FORK, OPEN, SCAN, STEP
from loadtests.locust.users.asking import HttpUser
from loadtests.traffic.checks import session_of
from loadtests.traffic.models import TEMPERATURE
from loadtests.traffic.steps import Series, closing, forking, opening, scanning, stepping

_PAST = 12  # the most months that are scanned when a session is opened
_FORKED = 0.02  # the share of steps before which a client goes on with a copy of its session
_DROPPED = 0.3  # the share of sessions that are left open when they are over


class SessionUser(HttpUser):
    """Opens a session, scans some past months, steps month by month, then closes or drops it, and begins again.

    What was refused or not answered is sent again, numbered as it is: the state must not have moved, or have moved
    once. Now and then it goes on with a fork. A session that is lost is opened anew.
    """

    models = (TEMPERATURE,)
    weight = 6

    def on_start(self) -> None:
        self._session = ""
        self._step = self._past = 0
        self._sure = True
        self._series: Series = self.following(self.traffic.series)

    @tag("sessions", "http")
    @task
    def go_on(self) -> None:
        try:
            if not self._session:
                self._open()
            elif self._step < self._past:
                self._scan()
            elif self._step == len(self._series):
                self._end()
            elif self._sure and self.dice.random() < _FORKED:
                self._fork()
            else:
                self._advance()
        except (SessionLost, WrongAnswer):  # what comes after a wrong answer would be wrong for the same reason
            self._session = ""
        except Failure:
            self._sure = False  # the call may have run: nothing but that call again says the same either way
        else:
            self._sure = True

    def _open(self) -> None:
        self._series, self._past = self.following(self.traffic.series), self.dice.randrange(_PAST + 1)
        self._session, self._step = session_of(self.ask(opening(self._series), OPEN)), 0

    def _scan(self) -> None:
        self.ask(scanning(self._series, self._session, 0, self._past), SCAN)
        self._step = self._past

    def _advance(self) -> None:
        self.ask(stepping(self._series, self._session, self._step), STEP)
        self._step += 1

    def _fork(self) -> None:
        parent = self._session
        self._session = session_of(self.ask(forking(parent, self._step), FORK))
        self.ask(closing(parent), CLOSE)

    def _end(self) -> None:
        session, self._session = self._session, ""
        if self.dice.random() >= _DROPPED:
            self.ask(closing(session), CLOSE)
