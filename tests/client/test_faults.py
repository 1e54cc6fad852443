"""Whatever breaks, a numbered step takes effect once; the client waits as it is told, and not for ever."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import httpcore
import httpx
import numpy as np
import pytest

from sluice.client import AsyncClient, AsyncSession, NoAnswer, SluiceError
from sluice.client.http import HttpTransport
from sluice.client.values import Call
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    QueueFull,
    SessionClosed,
    ShapeMismatch,
    StepMismatch,
)
from tests.client import over_grpc, over_http, over_websocket
from tests.client.faults import Serve, Time, calling, waits
from tests.client.sums import Cut, Sums

X = {"x": [1.0, 2.0]}


async def test_a_step_whose_answer_is_lost_takes_effect_once(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.AFTER]
    async with calling(served, sums, time) as client:
        session = await client.session("a")
        answer = await session.step(X)
        assert session.replayed
        assert answer["total"].tolist() == [1, 2]
        assert session.steps_done == sums.totals["a"].step == 1
        assert sums.calls == [("a", [1, 2], 0)] * 2
        assert len(time.slept) == 1


async def test_a_step_that_was_cut_before_it_ran_runs_then(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.BEFORE, Cut.BEFORE]
    async with calling(served, sums, time) as client:
        session = await client.session("a")
        await session.step(X)
        assert not session.replayed
        assert sums.calls == [("a", [1, 2], 0)]


async def test_a_repeat_sends_what_the_first_attempt_sent(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.AFTER]
    async with calling(served, sums, time) as client:
        session, row = await client.session("a"), np.array([1.0, 2.0], np.float32)
        step = asyncio.create_task(session.step({"x": row}))
        await asyncio.sleep(0)
        row[:] = 7
        assert (await step)["total"].tolist() == [1, 2]


@pytest.mark.parametrize("kind", [QueueFull, BackendUnavailable, DeadlineExceeded])
async def test_a_refusal_is_waited_for_as_long_as_it_says(
    served: Serve, sums: Sums, time: Time, kind: type[SluiceError]
) -> None:
    sums.faults = [waits(7, kind), waits(11, kind)]
    async with calling(served, sums, time) as client:
        session = await client.session("a")
        await session.step(X)
        assert time.slept == [7, 11]
        assert session.steps_done == 1


async def test_without_a_word_each_wait_may_be_longer_than_the_one_before(
    served: Serve, sums: Sums, time: Time
) -> None:
    sums.faults = [DeadlineExceeded("Too late.")] * 7
    async with calling(served, sums, time) as client:
        await (await client.session("a")).step(X)
    limits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert all(0 <= slept <= limit for slept, limit in zip(time.slept, limits, strict=True))


async def test_attempts_are_bounded_and_a_failed_step_leaves_the_number_as_it_was(
    served: Serve, sums: Sums, time: Time
) -> None:
    sums.faults = [waits(1)] * 3 + [None]
    async with calling(served, sums, time, attempts=3) as client:
        session = await client.session("a")
        with pytest.raises(QueueFull, match="Not now") as caught:
            await session.step(X)
        assert caught.value.retry_after_s == 1
        assert time.slept == [1, 1]
        assert session.steps_done == 0
        await session.step(X)
        assert session.steps_done == 1


async def test_the_time_is_bounded_and_a_wait_beyond_it_is_not_begun(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [waits(50), waits(50)]
    async with calling(served, sums, time, total_s=60) as client:
        session = await client.session("a")
        with pytest.raises(QueueFull):
            await session.step(X)
        assert time.slept == [50]


@pytest.mark.parametrize("error", [ShapeMismatch("Wrong."), BackendError("Broken.")])
async def test_what_waiting_does_not_mend_is_not_repeated(
    served: Serve, sums: Sums, time: Time, error: SluiceError
) -> None:
    sums.faults = [error]
    async with calling(served, sums, time) as client:
        session = await client.session("a")
        with pytest.raises(type(error), match=error.message):
            await session.step(X)
        assert (session.steps_done, time.slept) == (0, [])


async def test_a_step_without_a_number_is_repeated_only_if_it_did_not_run(
    served: Serve, sums: Sums, time: Time
) -> None:
    sums.faults = [waits(1), Cut.AFTER]
    async with calling(served, sums, time) as client:
        session = await client.session("a", numbered=False)
        with pytest.raises(NoAnswer):
            await session.step(X)
        assert sums.calls == [("a", [1, 2], None)]
        assert time.slept == [1]


async def test_a_repeat_that_meets_another_clients_step_says_so(served: Serve, sums: Sums, time: Time) -> None:
    async with calling(served, sums, time) as client:
        session = await client.session("a")
        sums.step("a", [5, 5], 0)
        sums.faults = [Cut.BEFORE]
        with pytest.raises(StepMismatch):
            await session.step(X)
        assert session.steps_done == 0
        await session.view()
        assert (await session.step(X))["total"].tolist() == [6, 7]


async def test_a_session_whose_closing_was_not_answered_is_closed(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.AFTER]
    async with calling(served, sums, time) as client:
        await (await client.session("a")).close()
        session = await client.session("b")
        sums.close("b")
        with pytest.raises(SessionClosed):
            await session.close()


async def test_the_gateway_gets_the_time_that_is_left(sums: Sums, time: Time) -> None:
    sums.faults = [waits(57)]
    async with over_http.served(sums) as (url, seen):
        async with AsyncClient(url, timeout_s=10, total_s=60, sleep=time.sleep, clock=time.clock) as client:
            await (await client.session("a")).step(X)
        assert [headers["sluice-timeout-ms"] for headers in seen] == ["10000", "10000", "10000", "3000"]


async def test_headers_go_with_every_call_and_name_the_session_for_proxies(sums: Sums, time: Time) -> None:
    async with over_http.served(sums) as (url, seen):
        async with AsyncClient(url, headers={"Sluice-Priority": "high"}) as client:
            await (await client.session("a")).step(X)
        assert [headers["sluice-priority"] for headers in seen] == ["high"] * 3
        assert [headers.get("sluice-session") for headers in seen] == ["a", None, "a"]  # view, contract, step


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_gateway_that_is_not_there_is_told(scheme: str, time: Time) -> None:
    async with AsyncClient(f"{scheme}://127.0.0.1:1", attempts=2, sleep=time.sleep, clock=time.clock) as client:
        with pytest.raises(NoAnswer):
            await client.open("sum")
    assert len(time.slept) == 1


@pytest.mark.looptime
async def test_a_gateway_that_hangs_is_given_up() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    transport = HttpTransport("http://gateway", {}, over=httpx.MockTransport(hang))
    with pytest.raises(NoAnswer, match="within 3 s"):
        await transport.run("step", Call("a", "sum", "1", {"x": np.zeros(2)}, 0, ()), 3.0)
    await transport.aclose()


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        (socket.gaierror(-2, "Name or service not known"), " There is no such host: is its name right?"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), ""),
    ],
)
async def test_why_there_is_no_connection_is_told_with_what_to_do(cause: OSError, hint: str) -> None:
    vars(cause).update(reason="CERTIFICATE_VERIFY_FAILED")

    async def fail(_: httpx.Request) -> httpx.Response:
        raise httpcore.ConnectError(cause) from cause

    transport = HttpTransport("https://gateway", {}, over=httpx.MockTransport(fail))
    with pytest.raises(NoAnswer) as caught:
        await transport.view("a", 3.0)
    assert str(caught.value) == f"https://gateway did not answer: {cause}.{hint}"
    await transport.aclose()


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "3", None])
async def test_attempts_are_a_whole_number_from_1(attempts: Any) -> None:
    with pytest.raises(ValueError, match=f'^"attempts" is a whole number from 1; got {attempts!r}'):
        AsyncClient("http://127.0.0.1:1", attempts=attempts)


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf"), -1.0, 0])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_time_limit_is_a_positive_number(scheme: str, timeout_s: float) -> None:
    wrong = pytest.raises(ValueError, match=f'^"timeout_s" is a positive number of seconds; got {timeout_s}')
    url = f"{scheme}://127.0.0.1:1"
    with wrong:
        AsyncClient(url, timeout_s=timeout_s)
    async with AsyncClient(url) as client:
        for call in (client.predict, client.recognize, client.generate):
            with wrong:
                await call("sum", [1], timeout_s=timeout_s)
        with wrong:
            client.generate_stream("sum", ["hi"], timeout_s=timeout_s)


@pytest.mark.parametrize("call", ["open", "view", "predict", "recognize", "generate", "tokens"])
async def test_a_page_instead_of_an_answer_is_no_answer(time: Time, call: str) -> None:
    async with page() as url, AsyncClient(url, attempts=2, sleep=time.sleep, clock=time.clock) as client:
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "open": lambda: client.open("sum"),
            "view": lambda: client.session("a"),
            "predict": lambda: client.predict("sum", [1]),
            "recognize": lambda: client.recognize("sum", [1]),
            "generate": lambda: client.generate("sum", ["hi"]),
            "tokens": lambda: anext(client.generate_stream("sum", ["hi"])),
        }
        with pytest.raises(NoAnswer, match=f"^{url} did not answer as a gateway does: .* got .<html>"):
            await asked[call]()
    assert len(time.slept) == 1


@asynccontextmanager
async def page() -> AsyncIterator[str]:
    """Answers whatever comes with a page, as a proxy may, which is one event's data besides."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>\ndata:<html>\n\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def steps(session: AsyncSession, stream: Any, count: int) -> list[asyncio.Task[Any]]:
    """Steps of one session that are asked for all at once."""
    return [asyncio.create_task(stream.step(session, {"x": [float(each), 1.0]})) for each in range(count)]


@pytest.mark.parametrize("module", [over_websocket, over_grpc], ids=["http", "grpc"])
async def test_a_stream_that_is_cut_sends_again_what_was_not_answered_in_order(
    module: ModuleType, sums: Sums, time: Time
) -> None:
    sums.faults = [None, None, Cut.AFTER, None, Cut.BEFORE, None, Cut.AFTER]
    async with (
        module.served(sums) as (url, opened),
        AsyncClient(url, sleep=time.sleep, clock=time.clock) as client,
        client.stream("sum") as stream,
    ):
        a, b = await client.session("a"), await client.session("b")
        answers = await asyncio.gather(*steps(a, stream, 6), *steps(b, stream, 6))
        sums_so_far = [float(sum(range(each + 1))) for each in range(6)]
        assert [answer["total"].tolist() for answer in answers] == [
            [total, float(index + 1)] for _ in "ab" for index, total in enumerate(sums_so_far)
        ]
        assert (a.steps_done, b.steps_done) == (6, 6)
        assert len(opened) > 1
    for session in "ab":
        numbers = [number for each, _, number in sums.calls if each == session]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("module", [over_websocket, over_grpc], ids=["http", "grpc"])
async def test_a_refused_step_of_a_stream_is_repeated_and_the_stream_stays(
    module: ModuleType, sums: Sums, time: Time
) -> None:
    sums.faults = [None, waits(5), ShapeMismatch("Wrong.")]
    async with (
        module.served(sums) as (url, opened),
        AsyncClient(url, sleep=time.sleep, clock=time.clock) as client,
        client.stream("sum") as stream,
    ):
        session = await client.session("a")
        await stream.step(session, X)
        with pytest.raises(ShapeMismatch):
            await stream.step(session, X)
        assert session.steps_done == 1
        await stream.step(session, X)
        assert session.steps_done == 2
        assert len(opened) == 1
        assert len(time.slept) == 1
        if module is over_grpc:
            assert time.slept == [5]


@pytest.mark.parametrize("module", [over_websocket, over_grpc], ids=["http", "grpc"])
async def test_a_stream_says_when_somebody_else_stepped_or_closed_its_session(
    module: ModuleType, sums: Sums, time: Time
) -> None:
    async with (
        module.served(sums) as (url, _),
        AsyncClient(url, sleep=time.sleep, clock=time.clock) as client,
        client.stream("sum") as stream,
    ):
        session = await client.session("a")
        await stream.step(session, X)
        sums.step("a", [5, 5], 1)
        with pytest.raises(StepMismatch):
            await stream.step(session, X)
        await session.view()
        await stream.step(session, X)
        sums.faults = [SessionClosed("It was closed.")]
        with pytest.raises(SessionClosed):
            await stream.step(session, X)


@pytest.mark.parametrize("module", [over_websocket, over_grpc], ids=["http", "grpc"])
async def test_a_caller_that_leaves_harms_nobody_on_the_stream(module: ModuleType, sums: Sums, time: Time) -> None:
    async with (
        module.served(sums) as (url, _),
        AsyncClient(url, sleep=time.sleep, clock=time.clock) as client,
        client.stream("sum") as stream,
    ):
        a, b = await client.session("a"), await client.session("b")
        leaving, staying = steps(a, stream, 1)[0], steps(b, stream, 3)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(*staying)
        assert b.steps_done == 3
        await a.view()
        await stream.step(a, X)


async def test_a_session_of_another_model_is_not_taken_on_a_stream(sums: Sums, time: Time) -> None:
    async with calling(over_http.served, sums, time) as client, client.stream("other") as stream:
        with pytest.raises(ValueError, match="for model 'other'"):
            await stream.step(await client.session("a"), X)
