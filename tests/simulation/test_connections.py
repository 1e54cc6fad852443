"""How long an HTTP connection lasts, in made-up time: idle, sending slowly, or still sending when it has its answer."""

import asyncio
import json
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

import numpy as np
import pytest

from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.http import transport
from sluice.gateway.http.clocks import Clock

from .doors import Client, Wire, World
from .loop import VirtualLoop, run
from .model import INITIAL, MODEL, answer, hashed

ARRIVAL_S, KEEP_ALIVE_S = 10.0, 40.0


class Runner:
    """Takes its time."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s

    async def predict(
        self, model: str, version: int, signature: str, inputs: dict[str, np.ndarray], outputs: Any, timeout_s: float
    ) -> dict[str, np.ndarray]:
        await asyncio.sleep(self.takes_s)
        return answer(signature, inputs)


class Listener(Client):
    """Sends bytes, and keeps what comes back until the connection ends, `at` which time it notes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.heard = b""
        self.at: float | None = None
        self.ended = asyncio.get_running_loop().create_future()
        self.wire = Wire(world.http_protocol(), self)

    def hear(self, data: bytes) -> None:
        self.heard += data

    def stop_waiting(self) -> None:
        self.at = asyncio.get_running_loop().time()
        self.ended.set_result(None)


def step(id: str, x: int = 11, *more: str) -> bytes:
    body = b'{"inputs": %d}' % x
    lines = [f"POST /v1/sessions/{id}:step HTTP/1.1", "host: g", f"content-length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def played(main: Callable[[World, VirtualLoop], Any], *, takes_s: float = 0.001, **more: Any) -> Any:
    """What `main` returns, in a world where the session `s` is open."""

    async def play(loop: VirtualLoop) -> Any:
        settings = {"arrival_s": ARRIVAL_S, "keep_alive_s": KEEP_ALIVE_S, "timeout_ms": 10**9, "session_idle_s": 1e6}
        world = World(Runner(takes_s), **{**settings, **more})
        await world.gateway.sessions.open(ModelSpec(MODEL), inf, id="s")
        return await main(world, loop)

    return run(play)


# The clock alone.


def test_who_waits_too_long_is_told_at_that_time_and_in_order():
    random, limit_s = Random(7), 3.0
    told: list[tuple[float, int]] = []
    wanted: list[tuple[float, int]] = []

    async def main(loop: VirtualLoop) -> None:
        clock: Clock[int] = Clock(limit_s, lambda who: told.append((loop.time(), who)))
        waiting: dict[int, float] = {}
        for _ in range(500):
            await asyncio.sleep(random.choice([0, 0.1, 0.5, 2, 7]))
            wanted.extend((since + limit_s, who) for who, since in waiting.items() if since + limit_s <= loop.time())
            waiting = {who: since for who, since in waiting.items() if since + limit_s > loop.time()}
            assert told == wanted
            who = random.randrange(9)
            if random.random() < 0.5:
                clock.begin(who)
                waiting.setdefault(who, loop.time())
            else:
                clock.stop(who)
                waiting.pop(who, None)
            assert [who in clock for who in range(9)] == [who in waiting for who in range(9)]

    run(main)
    assert len(told) > 50


def test_of_more_than_may_wait_the_longest_waiting_is_told():
    async def main(_: VirtualLoop) -> None:
        told: list[str] = []
        clock = Clock(3.0, told.append, most=2)
        for who in ("a", "b", "a", "c", "d"):
            clock.begin(who)
        assert told == ["a", "b"]
        clock.stop("c")
        clock.begin("e")
        assert told == ["a", "b"]

    run(main)


# Connections without a request.


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", step("s"), step("s") * 3, step("s")[:-1]], ids=range(5))
def test_a_connection_is_closed_when_it_has_been_idle_for_long(sent):
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        await asyncio.sleep(5)
        client.wire.deliver(sent)
        idle_since = loop.time() if b"HTTP" in sent else loop.time() - 5
        if sent == step("s")[:-1]:
            await asyncio.sleep(3)
            client.wire.deliver(step("s")[-1:])
            idle_since = loop.time()
        await client.ended
        took_s = 0.001 * client.heard.count(b"200 OK")
        assert client.at == pytest.approx(idle_since + took_s + KEEP_ALIVE_S, abs=1e-6)
        assert world.gateway.sessions.get("s").step == client.heard.count(b"200 OK") == sent.count(b"HTTP")

    played(main)


def test_a_connection_whose_body_was_refused_before_its_end_is_idle_after_its_end():
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        client.wire.deliver(b"POST /v1/sessions/s:step HTTP/1.1\r\ncontent-length: 2000\r\n\r\n")
        await asyncio.sleep(ARRIVAL_S / 2)
        assert b" 413 " in client.heard
        client.wire.deliver(bytes(2000))
        done = loop.time()
        await client.ended
        assert client.at == done + KEEP_ALIVE_S

    played(main, body_bytes=1000)


def test_of_more_connections_than_may_be_idle_the_longest_idle_is_closed_and_none_that_works():
    async def main(world: World, loop: VirtualLoop) -> None:
        working = Listener(world)
        working.wire.deliver(step("s"))
        idle = [Listener(world) for _ in range(3)]
        await asyncio.sleep(1)
        assert not any(each.ended.done() for each in (working, *idle))
        last = Listener(world)
        await idle[0].ended
        assert idle[0].at == loop.time()
        assert not any(each.ended.done() for each in (working, *idle[1:], last))
        await asyncio.sleep(5)
        assert b"200 OK" in working.heard  # which makes it the fourth, and the least long idle
        assert idle[1].ended.done()
        assert not any(each.ended.done() for each in (working, idle[2], last))

    played(main, takes_s=5, idle_connections=3)


# Requests that come slowly.

WHOLE = step("s")


@pytest.mark.parametrize("trickles", [False, True])
@pytest.mark.parametrize("sent", [1, 5, len(WHOLE) - 17, len(WHOLE) - 15, len(WHOLE) - 1])
def test_a_request_that_has_not_come_in_time_is_408(sent, trickles):
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        await asyncio.sleep(1)
        began = loop.time()
        for byte in range(sent) if trickles else []:
            client.wire.deliver(WHOLE[byte : byte + 1])
            await asyncio.sleep(ARRIVAL_S / 2 / sent)
        if not trickles:
            client.wire.deliver(WHOLE[:sent])
        await asyncio.sleep(began + ARRIVAL_S - loop.time() - 1e-3)
        assert client.heard == b""
        await asyncio.sleep(2e-3)
        head, _, body = client.heard.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"sluice-code: bad_request" in head and b"connection: close" in head and b"10 s" in body
        client.wire.end()
        await client.ended
        assert world.gateway.sessions.get("s").step == 0
        await world.check_empty()

    played(main)


def test_requests_that_each_come_in_time_are_answered_however_long_it_takes_in_all():
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        requests, middle = [step("s", x) for x in range(10)], len(WHOLE) // 2
        for before, after in zip([b"", *requests], [*requests, b""], strict=True):
            client.wire.deliver(before[middle:] + after[:middle])
            await asyncio.sleep(0.9 * ARRIVAL_S)
        bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in client.heard.split(b"HTTP/1.1 200 OK")[1:]]
        assert [each["outputs"]["y"] for each in bodies] == hashed(INITIAL, list(range(10)))

    played(main)


def test_a_request_behind_one_that_is_still_answered_has_time_until_after_the_answer():
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        client.wire.deliver(step("s") + step("s", 12)[:-1])
        await asyncio.sleep(takes_s)
        assert client.heard == b""
        await asyncio.sleep(0.9 * ARRIVAL_S)
        assert client.heard.count(b"200 OK") == 1
        client.wire.deliver(step("s", 12)[-1:])
        await asyncio.sleep(takes_s + 1)
        assert client.heard.count(b"200 OK") == 2
        client.leave()
        await world.check_empty()

    takes_s = 3 * ARRIVAL_S - 0.5
    played(main, takes_s=takes_s)


def test_a_refused_body_is_read_to_its_end_for_as_long_as_any_other():
    async def main(world: World, loop: VirtualLoop) -> None:
        client, began = Listener(world), loop.time()
        client.wire.deliver(b"POST /v1/sessions/s:step HTTP/1.1\r\ncontent-length: 20000\r\n\r\n")
        while not client.ended.done():
            client.wire.deliver(bytes(10))
            await asyncio.sleep(0.125)
        assert client.at == began + ARRIVAL_S
        assert client.heard.count(b"HTTP/1.1 ") == client.heard.count(b" 413 ") == 1

    played(main, body_bytes=1000)


# Clients that send nothing more before they have their answers.


@pytest.mark.parametrize("takes_s", [0.5, 1.5, 5.0])
@pytest.mark.parametrize("ahead", [1, 3])
def test_who_sends_no_more_has_its_answers_until_it_counts_as_gone(takes_s, ahead):
    async def main(world: World, loop: VirtualLoop) -> None:
        client, began = Listener(world), loop.time()
        client.wire.deliver(step("s") * ahead + step("s")[:-1])
        client.wire.end()
        await client.ended
        answered = min(ahead, int(2.0 / takes_s))
        assert client.at == pytest.approx(began + min(2.0, ahead * takes_s), abs=1e-6)
        assert client.heard.count(b"200 OK") == world.gateway.sessions.get("s").step == answered
        assert client.heard.count(b"connection: close") == (answered == ahead)
        told = world.metrics.text().decode()
        assert ('outcome="client_gone"} 1' in told) == (answered < ahead)
        await world.check_empty()
        assert world.gateway.sessions.get("s").step == answered

    played(main, takes_s=takes_s, half_closed_s=2.0)


# Clients that still send when they have their answer.

REFUSED = b"POST /v1/sessions/s:step HTTP/1.1\r\nconnection: close\r\ncontent-length: 999999999\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "ends"),
    [(REFUSED, "by the client"), (REFUSED, "by time"), (REFUSED, "by size"), (b"nonsense\r\n\r\n", "by the client")],
    ids=range(4),
)
def test_what_a_client_sends_after_its_last_answer_is_thrown_away_within_bounds(monkeypatch, sent, ends):
    monkeypatch.setattr(transport, "_DRAIN_BYTES", 2**20)

    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        client.wire.deliver(sent)
        await asyncio.sleep(0)
        began = loop.time()
        assert client.heard.count(b"connection: close") == 1 and client.wire.half_closed
        client.wire.deliver(bytes(2000))
        if ends == "by the client":
            await asyncio.sleep(1)
            assert not client.ended.done()
            client.wire.end()
            await client.ended
        elif ends == "by time":
            while not client.ended.done():
                client.wire.deliver(b"more")
                await asyncio.sleep(0.5)
            assert client.at == began + transport.DRAIN_S
        else:
            for _ in range(5):
                client.wire.deliver(bytes(2**18))
            await client.ended
            assert client.at == began
        assert client.heard.count(b"HTTP/1.1 ") == 1
        await world.check_empty()

    played(main, body_bytes=1000)


def test_a_client_that_sends_nothing_more_is_parted_from_at_once():
    async def main(world: World, loop: VirtualLoop) -> None:
        client = Listener(world)
        client.wire.deliver(step("s", 11, "connection: close"))
        await client.ended
        assert client.heard.count(b"200 OK") == 1 and not client.wire.half_closed

    played(main)
