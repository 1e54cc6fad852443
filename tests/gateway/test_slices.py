"""What one connection brings is taken a little at a time, whole and in order, and others have their turn between."""

import asyncio

import pytest
import uvloop

from sluice.gateway import slices
from sluice.gateway.slices import PART_BYTES, Sliced


class Transport:
    def __init__(self) -> None:
        self.reading = True
        self.closing = False

    def pause_reading(self) -> None:
        assert not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing


class Taker(Sliced):
    full = False

    def __init__(self) -> None:
        self.transport = Transport()
        self.parts: list[bytes] = []

    @property
    def held(self) -> bool:
        return self.full

    def take(self, data: bytes) -> None:
        self.parts.append(data)


@pytest.fixture
def taker(monkeypatch: pytest.MonkeyPatch) -> Taker:
    monkeypatch.setattr(slices, "_TURN_S", 0.0)  # one part a turn
    return Taker()


FLOOD = bytes(i % 251 for i in range(10 * PART_BYTES + 7))


async def until_taken(taker: Taker) -> int:
    """Turns of the loop until nothing waits."""
    async with asyncio.timeout(10):
        turns = 0
        while taker.waits:
            await asyncio.sleep(0)
            turns += 1
    return turns


async def test_what_is_small_is_taken_at_once(taker):
    taker.data_received(b"GET")
    assert taker.parts == [b"GET"] and not taker.waits


async def test_a_flood_is_taken_whole_in_order_and_over_many_turns_and_not_read_meanwhile(taker):
    taker.data_received(FLOOD)
    assert taker.waits and not taker.transport.reading
    assert await until_taken(taker) >= 9
    assert b"".join(taker.parts) == FLOOD
    assert max(map(len, taker.parts)) <= PART_BYTES
    assert taker.transport.reading


def test_many_small_reads_in_one_turn_are_a_flood_too(taker):
    async def flood() -> None:
        for start in range(0, len(FLOOD), 1000):
            taker.data_received(FLOOD[start : start + 1000])
        assert taker.waits
        await until_taken(taker)
        assert b"".join(taker.parts) == FLOOD

    uvloop.run(flood())  # whose time stands still within a turn


async def test_who_wants_no_more_gets_the_rest_later(taker):
    taker.full = True
    taker.data_received(FLOOD)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not taker.parts and not taker.transport.reading
    taker.full = False
    await until_taken(taker)
    assert b"".join(taker.parts) == FLOOD


async def test_nothing_is_taken_from_a_connection_that_is_lost(taker):
    taker.data_received(FLOOD)
    taken = len(taker.parts)
    taker.forget()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(taker.parts) == taken and not taker.waits


async def test_a_connection_that_closes_is_not_read_on(taker):
    taker.data_received(FLOOD)
    taker.transport.closing = True
    await until_taken(taker)
    assert len(taker.parts) < 4
