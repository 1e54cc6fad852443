"""Clients of sessions over HTTP: a session each, from its first month to the last, through whatever happens to it."""

from locust import tag, task

from loadtests.locust.outcomes import Failure, SessionLost, WrongAnswer
from loadtests.locust.scenarios import CLOSE, FORK, OPEN, SCAN, STEP
from loadtests.locust.users.asking import HttpUser
from loadtests.locust.users.walk import Walk
from loadtests.traffic.checks import text_of
from loadtests.traffic.models import TEMPERATURE
from loadtests.traffic.steps import closing, forking, opening, scanning, stepping

_PAST = 12  # the most months that are scanned when a session is opened
_FORKED = 0.02  # the share of steps before which a client goes on with a copy of its session
_DROPPED = 0.3  # the share of sessions that are left open when they are over


class SessionUser(HttpUser):
    """Opens a session, scans some past months, steps month by month, then closes or drops it, and begins again.

    What was refused or not answered is sent again, numbered as it is: the state must not have moved, or have moved
    once. Now and then the client goes on with a fork. A session that is lost is opened anew.
    """

    models = (TEMPERATURE,)
    weight = 6
    _walk: Walk | None = None
    _sure = True  # whether the last call was answered; if not it may have run, and only that call itself may follow

    @tag("sessions", "http")
    @task
    def go_on(self) -> None:
        try:
            if self._walk is None:
                self._walk = self._opened()
            elif self._walk.over:
                self._end(self._walk)
            elif self._walk.step < self._walk.past:
                self._scan(self._walk)
            elif self._sure and self.dice.random() < _FORKED:
                self._fork(self._walk)
            else:
                self._advance(self._walk)
            self._sure = True
        except (SessionLost, WrongAnswer):  # what comes after a wrong answer would be wrong for the same reason
            self._walk, self._sure = None, True
        except Failure:
            self._sure = False

    def _opened(self) -> Walk:
        series = self.following(self.traffic.series)
        session = text_of(self.ask(opening(series), OPEN), "session")
        return Walk(session, series, past=self.dice.randrange(_PAST + 1))

    def _scan(self, walk: Walk) -> None:
        self.ask(scanning(walk.series, walk.session, 0, walk.past), SCAN)
        walk.step = walk.past

    def _advance(self, walk: Walk) -> None:
        self.ask(stepping(walk.series, walk.session, walk.step), STEP)
        walk.step += 1

    def _fork(self, walk: Walk) -> None:
        parent = walk.session
        walk.session = text_of(self.ask(forking(parent, walk.step), FORK), "session")
        self.ask(closing(parent), CLOSE)

    def _end(self, walk: Walk) -> None:
        self._walk = None
        if self.dice.random() >= _DROPPED:
            self.ask(closing(walk.session), CLOSE)
