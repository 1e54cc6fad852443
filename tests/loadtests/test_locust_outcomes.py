"""How requests of Locust's users fail: kinds that are told apart, and the first wrong answers, kept whole."""

from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.locust.outcomes import (
    BROKEN,
    NO_ANSWER,
    NO_CONNECTION,
    SHOWN,
    Refused,
    SessionLost,
    Unreachable,
    Wrong,
    WrongAnswer,
    WrongAnswers,
    refused,
    unreachable,
)


class Hook:
    """An event of Locust: whoever listens is called with keywords."""

    def __init__(self) -> None:
        self._listeners: list[Any] = []

    def add_listener(self, listener: Any) -> None:
        self._listeners.append(listener)

    def fire(self, **told: Any) -> None:
        for listener in self._listeners:
            listener(**told)


def process() -> tuple[Any, WrongAnswers]:
    events = SimpleNamespace(
        **{name: Hook() for name in ("request", "report_to_master", "worker_report", "test_start")}
    )
    return events, WrongAnswers(SimpleNamespace(events=events))


def fail(events: Any, *numbers: int) -> None:
    for number in numbers:
        wrong = WrongAnswer(f"request {number}", f"difference {number}")
        events.request.fire(request_type="POST", name="step", exception=wrong, response_time=1.0)


def report(worker: Any, master: Any) -> None:
    data: dict[str, Any] = {"stats": []}
    worker.report_to_master.fire(client_id="one", data=data)
    master.worker_report.fire(client_id="one", data=data)


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("session_lost", "SessionLost: session_lost"),
        ("session_not_found", "SessionLost: session_not_found"),
        ("session_expired", "SessionLost: session_expired"),
        ("backend_unavailable", "Refused: backend_unavailable"),
        ("queue_full", "Refused: queue_full"),
        ("step_mismatch", "WrongAnswer"),
    ],
)
def test_a_lost_session_is_no_wrong_answer_and_a_number_that_does_not_go_on_is_one(code: str, shown: str) -> None:
    assert repr(refused(code, "POST /v1/sessions/one:step", "at 3; a call numbered 2 came")) == shown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "refused"), NO_CONNECTION),
        (ConnectionResetError(104, "reset"), BROKEN),
        (TimeoutError(), NO_ANSWER),
        (EOFError(), BROKEN),
    ],
)
def test_why_there_was_no_answer_is_told_in_words_that_do_not_vary(error: Exception, reason: str) -> None:
    wrapped = Exception("sent 1 time")
    wrapped.original = error  # type: ignore[attr-defined]
    assert repr(unreachable(error)) == repr(unreachable(wrapped)) == f"Unreachable: {reason}"


def test_wrong_answers_are_one_line_in_the_statistics_whatever_they_say() -> None:
    assert repr(WrongAnswer("a", "b")) == repr(WrongAnswer("c", "d")) == "WrongAnswer"


def test_all_wrong_answers_are_counted_and_the_first_are_kept_whole() -> None:
    events, wrong = process()
    for failure in (None, Refused("queue_full"), SessionLost("session_lost"), Unreachable(BROKEN)):
        events.request.fire(request_type="POST", name="step", exception=failure, response_time=1.0)
    assert (wrong.count, wrong.first) == (0, [])
    fail(events, *range(5))
    assert wrong.count == 5
    assert wrong.first == [Wrong("step", f"request {i}", f"difference {i}") for i in range(SHOWN)]
    assert str(wrong.first[0]) == "step: difference 0\n  asked: request 0"


def test_workers_tell_their_master_each_wrong_answer_once() -> None:
    master, all_wrong = process()
    workers = [process()[0] for _ in range(2)]
    fail(workers[0], 1, 2)
    report(workers[0], master)
    report(workers[0], master)
    fail(workers[1], 3, 4)
    report(workers[1], master)
    fail(workers[0], 5)
    report(workers[0], master)
    assert all_wrong.count == 5
    assert [each.request for each in all_wrong.first] == ["request 1", "request 2", "request 3"]


def test_a_second_run_counts_from_nothing() -> None:
    (events, wrong), (master, all_wrong) = process(), process()
    fail(events, 1, 2)
    report(events, master)
    for each in (events, master):
        each.test_start.fire(environment=None)
    fail(events, 3)
    report(events, master)
    assert (wrong.count, all_wrong.count) == (1, 1)
    assert [each.request for each in all_wrong.first] == ["request 3"]
