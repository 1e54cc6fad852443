"""The open loop: schedules, sending in made-up time, what is found at a rate, and the search for the highest one."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.open_loop import probe, search
from loadtests.open_loop.connection import Answer, Connection
from loadtests.open_loop.schedule import arrivals
from loadtests.open_loop.search import Bounds, Tried
from loadtests.open_loop.sender import Exchanged, Offered, Sender, Turn, Unanswered
from loadtests.open_loop.sources import Cycle, Sessions
from loadtests.traffic.exchange import Exchange, WrongAnswer
from loadtests.traffic.steps import Series

OK = Answer(200, b"right")


def test_a_poisson_schedule_has_its_rate_and_gaps_without_memory() -> None:
    times = arrivals(1000, 20, seed=1)
    gaps = np.diff(times)
    assert len(times) / 20 == pytest.approx(1000, rel=0.03)
    assert (gaps.mean(), gaps.std()) == (pytest.approx(1e-3, rel=0.03), pytest.approx(1e-3, rel=0.05))
    assert (gaps >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 20
    assert np.array_equal(times, arrivals(1000, 20, seed=1))


def right(body: bytes) -> None:
    if body != b"right":
        raise WrongAnswer(f"expected b'right', and {body!r} came")


REQUEST = Exchange("/v1/models/one:predict", b"{}", right)


class Server:
    """Answers in order, one request at a time, `service_s` each; between `stall` and its end it does nothing."""

    def __init__(self, sender: Sender, service_s: float, lines: int, stall: tuple[float, float] = (0.0, 0.0)) -> None:
        self.loop, self.sender, self.service_s, self.stall = asyncio.get_running_loop(), sender, service_s, stall
        self.free_at = self.loop.time()
        self.received: list[bytes] = []
        for _ in range(lines):
            sender.join(Line(self))

    def receive(self, line: "Line", request: bytes) -> None:
        self.received.append(request)
        begins = max(self.loop.time(), self.free_at)
        if self.stall[0] <= begins < self.stall[1]:
            begins = self.stall[1]
        self.free_at = begins + self.service_s
        self.loop.call_at(self.free_at, self.sender.answered, line, OK)


class Line:
    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, request: bytes) -> None:
        self.server.receive(self, request)

    def close(self) -> None: ...


def queued(due: np.ndarray, service_s: float, stall: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """When a server that answers in order has answered each, by the oldest of recursions."""
    ends, free_at = [], 0.0
    for at in due:
        begins = max(at, free_at)
        if stall[0] <= begins < stall[1]:
            begins = stall[1]
        free_at = begins + service_s
        ends.append(free_at)
    return np.array(ends)


def in_made_up_time(waiting: int = 10_000) -> Sender:
    return Sender(waiting=waiting, clock=asyncio.get_running_loop().time)


@pytest.mark.looptime
@pytest.mark.parametrize("lines", [1, 7, 400])
async def test_latencies_are_those_of_the_queue_however_few_connections_there_are(lines: int) -> None:
    due, sender = arrivals(300, 2, seed=3), in_made_up_time()
    Server(sender, 0.003, lines)
    offered = await sender.offer(due, Cycle([REQUEST]))
    assert offered.answered_at == pytest.approx(queued(due, 0.003), abs=1e-4)
    assert (offered.sent_at >= due - 1e-9).all()


@pytest.mark.looptime
async def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    due, sender, stall = arrivals(200, 4, seed=5), in_made_up_time(), (1.0, 2.0)
    Server(sender, 0.001, 16, stall)
    found = await sender.offer(due, Cycle([REQUEST]))
    assert found.answered_at == pytest.approx(queued(due, 0.001, stall), abs=1e-4)
    in_it = (due >= 1.0) & (due < 2.0)
    assert in_it.sum() > 150
    assert (found.answered_at[in_it] >= 2.0).all()


@pytest.mark.looptime
async def test_what_finds_too_many_waiting_is_skipped_and_the_others_are_answered_in_order() -> None:
    due, sender = np.arange(12) * 0.1, in_made_up_time(waiting=3)
    server = Server(sender, 1.0, 2)
    requests = [Exchange(f"/{place}", b"", right) for place in range(12)]
    found = await sender.offer(due, Cycle(requests))
    # Two are in flight, three wait; at 1.0 one is answered and another sent, so that one more may wait.
    assert np.flatnonzero(np.isnan(found.sent_at)).tolist() == [5, 6, 7, 8, 9, 11]
    assert [exchanged is None for exchanged in found.exchanges] == np.isnan(found.answered_at).tolist()
    assert len(server.received) == 6


@pytest.mark.looptime
async def test_a_request_that_is_not_answered_ends_the_schedule() -> None:
    sender = in_made_up_time()
    Server(sender, 1000.0, 4)
    with pytest.raises(Unanswered, match="3 requests were not answered 20 s after"):
        await sender.offer(np.array([0.1, 0.2, 0.3]), Cycle([REQUEST]))


@pytest.mark.looptime
async def test_a_lost_connection_ends_the_schedule_with_its_reason() -> None:
    sender = in_made_up_time()
    Server(sender, 0.01, 4)
    asyncio.get_running_loop().call_later(0.5, sender.lost, Line, ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        await sender.offer(arrivals(50, 5, seed=1), Cycle([REQUEST]))


def series_of(*lengths: int) -> list[Series]:
    values = (np.full((length, 1), 20 + place, np.float32) for place, length in enumerate(lengths))
    return [Series("temperature", block, block) for block in values]


@pytest.mark.looptime
async def test_a_session_has_one_step_at_a_time_and_steps_that_find_none_free_wait_for_one() -> None:
    due, sender = np.arange(60) * 0.01, in_made_up_time()
    server = Server(sender, 0.05, 8)
    found = await sender.offer(due, Sessions(series_of(5), ["a", "b", "c"]))
    for name in (b"/a:step ", b"/b:step ", b"/c:step "):
        steps = [int(request.split(b'"step":')[1][:-1]) for request in server.received if name in request]
        assert steps == [place % 5 for place in range(len(steps))]
        assert len(steps) > 10
    in_flight = [((found.sent_at <= at) & (found.answered_at > at)).sum() for at in found.sent_at]
    assert max(in_flight) == 3


def asked(session: Turn) -> str:
    return f"{session.request.path} {session.request.body.decode()}"


def test_a_session_ends_with_its_series_goes_on_after_a_refusal_and_is_opened_anew_when_it_is_lost() -> None:
    sessions = Sessions(series_of(2, 3), ["a"])
    session = sessions.take()
    assert session is not None
    assert sessions.take() is None
    assert session.answered(Answer(503, b"", "draining")) is None
    assert sessions.take() is session
    assert asked(session) == '/v1/sessions/a:step {"inputs":{"temperature":[20.0]},"step":0}'
    session.answered(OK)
    assert sessions.take() is session
    close = session.answered(OK)
    assert (close.method, close.path) == ("DELETE", "/v1/sessions/a")
    opening = session.answered(Answer(204, b""))
    assert opening.path == "/v1/models/temperature/sessions"
    assert b'"session":"a","if_exists":"restart"' in opening.body
    assert sessions.take() is None
    assert session.answered(Answer(201, b"")) is None
    assert sessions.take() is session
    assert asked(session) == '/v1/sessions/a:step {"inputs":{"temperature":[21.0]},"step":0}'
    assert session.answered(Answer(410, b"", "session_lost")).path == "/v1/models/temperature/sessions"
    assert session.answered(Answer(201, b"")) is None
    assert sessions.take() is session
    assert asked(session) == '/v1/sessions/a:step {"inputs":{"temperature":[20.0]},"step":0}'


class Heard:
    """An owner of a connection, and its transport."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.reasons: list[str] = []
        self.connection = Connection(self)
        self.connection.connection_made(self)

    def answered(self, line: Connection, answer: Answer) -> None:
        self.answers.append(answer)

    def lost(self, line: Connection, reason: Exception) -> None:
        self.reasons.append(str(reason))

    def abort(self) -> None:
        self.connection.connection_lost(None)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\r\n\r\n", Answer(200, b"\r\n\r\n")),
        (b"HTTP/1.1 204 No Content\r\nsluice-session: a\r\n\r\n", Answer(204, b"")),
        (
            b"HTTP/1.1 429 Too\r\nSluice-Code: queue_full\r\ncontent-length: 2\r\n\r\n{}",
            Answer(429, b"{}", "queue_full"),
        ),
    ],
)
def test_an_answer_is_read_from_pieces_of_any_size(answer: bytes, expected: Answer) -> None:
    for size in range(1, len(answer) + 1):
        heard = Heard()
        for _ in range(2):
            for start in range(0, len(answer), size):
                heard.connection.data_received(answer[start : start + size])
        assert heard.answers == [expected, expected]


def test_a_connection_tells_why_it_ended_unless_we_let_go_of_it() -> None:
    heard = Heard()
    heard.connection.connection_lost(None)
    heard.connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    heard.connection.close()
    assert heard.reasons == [
        "the server closed a connection",
        "expected answers with a content-length, and one came without",
    ]


def offered(latencies_s: np.ndarray, answers: list[Answer | None], seconds: float = 1.0) -> Offered:
    """What became of requests, evenly due and sent half of their latency later, with these answers; None: skipped."""
    due = np.arange(len(answers)) * seconds / len(answers)
    skipped = np.array([answer is None for answer in answers])
    sent, came = (np.where(skipped, np.nan, due + share * latencies_s) for share in (0.5, 1.0))
    return Offered(due, sent, came, [answer and Exchanged(REQUEST, answer) for answer in answers], [], seconds, 0.1)


def test_latencies_are_exact_to_three_digits() -> None:
    drawn = np.random.default_rng(7).lognormal(-4, 1.5, 20_000)
    found = probe.histogram(drawn)
    for percentile, place in ((50, 10_000), (90, 18_000), (99, 19_800), (99.9, 19_980), (100, 20_000)):
        expected = np.sort(drawn)[place - 1] * 1e6
        assert found.get_value_at_percentile(percentile) == pytest.approx(expected, rel=2e-3)


def test_a_rate_is_held_by_99_of_100_answers_within_the_limit_and_nothing_amiss() -> None:
    def trouble(answers: list[Answer | None], slow: int = 0, slow_s: float = 0.06) -> str:
        latencies = np.where(np.arange(len(answers)) < slow, slow_s, 0.01)
        return probe.judged(offered(latencies, answers), 500.0, 1.0, 0.05).trouble(0.05)

    fine: list[Answer | None] = [OK] * 500
    assert trouble(fine) == ""
    assert trouble(fine, slow=5) == ""
    assert trouble(fine, slow=6) == "p99 over the limit"
    assert trouble(fine, slow=6, slow_s=3.0) == "p99 over the limit, 99% answered in time"
    assert trouble([*fine[1:], Answer(200, b"left")]) == "1 wrong"
    assert trouble([*fine[1:], Answer(503, b"", "draining")]) == "1 draining"
    assert trouble([*fine[1:], Answer(502, b"")]) == "1 502"
    assert trouble([*fine[1:], None]) == "1 skipped"
    assert trouble([Answer(429, b"", "queue_full")]) == "1 queue_full, p99 over the limit, 0% answered in time"


def test_every_answer_is_judged_and_the_first_wrong_ones_are_kept() -> None:
    answers = [
        OK,
        Answer(200, b"a"),
        None,
        Answer(200, b"b"),
        Answer(429, b"right"),
        Answer(200, b"c"),
        Answer(200, b"d"),
    ]
    found = probe.judged(offered(np.full(7, 0.02), answers), 7.0, 1.0, 0.05)
    assert (found.due, found.right, found.wrong, found.refused, found.skipped) == (7, 1, 4, {"429": 1}, 1)
    assert found.told == tuple(f"expected b'right', and b'{letter}' came" for letter in "abc")
    assert (found.latency.total_count, found.ms(50)) == (1, pytest.approx(20, rel=1e-2))
    assert found.late_s == pytest.approx(0.01)


def all_tried(bounds: Bounds, holds) -> list[Tried]:
    """The probes of a search; `holds(rate, place)` says what each finds."""
    tried: list[Tried] = []
    while (rate := search.next_rate(tried, bounds)) is not None:
        tried.append(Tried(rate, holds(rate, len(tried))))
    return tried


@given(
    capacity=st.floats(1, 50_000),
    start=st.sampled_from([20.0, 100.0, 640.0]),
    unlucky=st.sets(st.integers(0, 40), max_size=3),
)
def test_the_highest_rate_is_found_though_single_probes_have_bad_luck(
    capacity: float, start: float, unlucky: set[int]
) -> None:
    alone = {place for place in unlucky if place - 1 not in unlucky}  # no two in a row
    bounds = Bounds(start, least=1.0, probes=60)
    tried = all_tried(bounds, lambda rate, place: rate <= capacity and place not in alone)
    found = search.highest(tried)
    steps = [start * 1.01**power for power in range(-1000, 1200)]  # the slow way: every rate in steps of a hundredth
    best = max((rate for rate in steps if rate <= capacity), default=None)
    if found is None:
        assert best is not None
        assert best < 2.1  # half of it was not tried, as that is less than 1
    else:
        assert best / 1.07 <= found <= capacity


def test_a_search_is_bounded_and_asks_twice_before_it_gives_a_rate_up() -> None:
    bounds = Bounds(100.0, least=10.0)
    never = [each.rate for each in all_tried(bounds, lambda *_: False)]
    assert never == [100, 100, 50, 50, 25, 25, 12.5, 12.5]
    always = all_tried(bounds, lambda *_: True)
    assert [each.rate for each in always[:4]] == [100, 200, 400, 800]
    assert len(always) == bounds.probes
    up_to_300 = [each.rate for each in all_tried(bounds, lambda rate, _: rate <= 300)]
    assert up_to_300 == [100, 200, 400, 400, 283, 336, 336, 308, 308, 295]
