"""The client for programs without an event loop does what the asynchronous one does."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from sluice.client import Client, NoAnswer, NotCalibrated, SluiceError
from sluice.client.session import AsyncSession
from sluice.client.sync import Loop, Session
from sluice.client.values import Opened
from sluice.policy.errors import SessionClosed
from tests.client.conftest import Urls
from tests.gateway.here import PATIENCE_S

ROW = {"x": [1.0, 2.0]}


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, urls: Urls) -> Iterator[Client]:
    with Client(getattr(urls, request.param), timeout_s=20) as client:
        yield client


def test_a_session_is_opened_stepped_scanned_and_closed(client: Client) -> None:
    with client.open("sum", ttl_s=60) as session:
        assert session.step(ROW)["total"].tolist() == [1, 2]
        assert session.scan({"x": np.ones((2, 2))})["total"].tolist() == [[2, 3], [3, 4]]
        assert (session.model, session.version, session.steps_done, session.replayed) == ("sum", "1", 3, False)
        assert session.view().step == 3
        assert session.renew(30).step == 3
        assert client.session(session.id).steps_done == 3
        assert session.id in {view.session for view in client.list("sum", limit=1000).sessions}
    with pytest.raises(SessionClosed):
        session.step(ROW)


def test_an_option_that_is_misspelt_is_told_with_those_that_there_are() -> None:
    with pytest.raises(TypeError, match=r"^Client has no option 'timeout'; it has attempts, timeout_s, total_s, "):
        Client("http://127.0.0.1:1", timeout=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("call", ["predict", "recognize", "generate", "generate_stream", "open"])
def test_an_option_that_a_call_has_not_is_told_with_those_of_this_client(urls: Urls, call: str) -> None:
    with (
        Client(urls.http) as client,
        pytest.raises(TypeError, match=rf"^Client\.{call} has no option 'timeout'; it has "),
    ):
        getattr(client, call)("sum", [[1]], timeout=1)


def test_states_are_copied_kept_and_put_back(client: Client) -> None:
    session = client.open("sum")
    session.step(ROW)
    kept, fork = session.state(), session.fork()
    session.step(ROW)
    session.put_state(kept)
    assert (session.steps_done, fork.steps_done) == (1, 1)
    assert client.restore(f"{session.id}-copy", kept).step(ROW)["total"].tolist() == [2, 4]
    session.close()


def test_many_sessions_step_in_one_call_and_on_a_stream(client: Client) -> None:
    sessions = [client.open("sum") for _ in range(3)]
    columns = client.step_many("sum", sessions, {"x": np.ones((3, 2))})
    assert columns.outputs["total"].tolist() == [[1, 1]] * 3
    with client.stream("sum") as stream:
        assert [stream.step(session, ROW)["total"].tolist() for session in sessions] == [[2, 3]] * 3


def test_threads_may_share_a_session(client: Client) -> None:
    session = client.open("sum")
    with ThreadPoolExecutor(8) as threads:
        totals = list(threads.map(lambda _: session.step({"x": [1, 0]})["total"][0], range(40)))
    assert sorted(totals) == list(range(1, 41))
    assert session.steps_done == 40


def test_a_refusal_is_raised_where_the_call_was_made(client: Client) -> None:
    with pytest.raises(SluiceError, match="nothing"):
        client.open("nothing")


def test_a_client_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Client("ftp://127.0.0.1")
    with Client("http://127.0.0.1:1", attempts=1) as client, pytest.raises(NoAnswer):
        client.open("sum")
    assert threading.active_count() == before


def test_an_interrupt_ends_a_stream_and_is_not_hidden_by_its_end() -> None:
    loop, closed, waits = Loop(), threading.Event(), threading.Event()

    async def tokens() -> AsyncGenerator[int]:
        try:
            yield 1
            waits.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as a connection that is closed
            await asyncio.sleep(0)
            closed.set()

    def interrupt() -> None:
        """Again where Python was just about to wait: then it waits on."""
        waits.wait()
        os.kill(os.getpid(), signal.SIGINT)
        while not closed.wait(5):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have it ignored
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            list(loop.each(tokens()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed.is_set()
    loop.close()


@pytest.mark.timeout(30)
def test_an_interrupt_before_a_call_can_be_cancelled_ends_a_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, closed, begin = Loop(), threading.Event(), asyncio.run_coroutine_threadsafe
    begun: list[Future[Any]] = []

    async def tokens() -> AsyncGenerator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.set()

    def interrupted(coroutine: Coroutine[Any, Any, Any], of: asyncio.AbstractEventLoop) -> Future[Any]:
        begun.append(begin(coroutine, of))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return begun[-1]

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(loop.each(tokens()))
    assert closed.is_set()
    assert begun[1].cancelled()
    loop.close()


@pytest.mark.parametrize(("scheme", "connections"), [("http", 4), ("grpc", 1)])
def test_calls_of_a_client_that_is_closed_end_without_an_answer(scheme: str, connections: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as accepted:
        silent.settimeout(PATIENCE_S)
        client = Client(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", timeout_s=600)
        stream, session = client.stream("sum"), _session(client)
        calls: list[Callable[[], Any]] = [
            lambda: client.predict("sum", [1]),
            lambda: client.predict("sum", [2]),
            lambda: client.signatures("sum"),
            lambda: session.step(ROW),
            lambda: stream.step(_session(client), ROW),
            lambda: list(client.generate_stream("sum", ["a"])),
        ]
        told: list[str] = []

        def refused(call: Callable[[], Any]) -> None:
            with pytest.raises(NoAnswer) as raised:
                call()
            told.append(raised.value.message)

        threads = [threading.Thread(target=refused, args=(call,), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for _ in range(connections):  # what has been sent is a call that runs
            accepted.enter_context(silent.accept()[0]).recv(1)
        client.close()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert "The client was closed before an answer came." in told
        assert len(told) == len(calls)
    for call in calls:
        with pytest.raises(NoAnswer, match="The client is closed: make another one"):
            call()
    stream.close()
    client.close()


def test_a_stream_whose_client_is_closed_ends_without_an_answer() -> None:
    loop, closed = Loop(), threading.Event()

    async def tokens() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.set()

    left, read = loop.each(tokens()), loop.each(tokens())
    assert (next(left), next(read)) == (1, 1)
    loop.close()
    assert closed.is_set()
    left.close()
    with pytest.raises(NoAnswer):
        next(read)


def _session(client: Client) -> Session:
    inner = client._inner
    return Session(
        client._loop, AsyncSession(inner._transport, inner._patience, Opened("a", "sum", "1", 0), numbered=True)
    )


def test_rows_are_recognized(client: Client) -> None:
    with pytest.raises(NotCalibrated, match="sluice calibrate sides"):
        client.recognize("sides", [[0.1, 0.2]], method="knn", level=0.1, top_k=2, sets=True, version=1, timeout_s=5)


def test_rows_are_predicted(client: Client) -> None:
    assert client.predict("plain", [[1, 2]], ["y"], version=1, timeout_s=5)["y"].tolist() == [[2, 4]]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: client.predict("plain", {"x": [[row, 0]]})["y"][0, 0], range(40)))
    assert answers == [2 * row for row in range(40)]
