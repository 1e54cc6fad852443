"""Calls of one session go one after another, in the order in which they were made."""

import asyncio

import pytest

from sluice.client.turns import Turns, turn


class Calls:
    """Calls that go on when the test says so; `log` is what began and ended."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def call(self, name: str, *turns: Turns) -> asyncio.Task[None]:
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._run(name, turns))

    async def _run(self, name: str, turns: tuple[Turns, ...]) -> None:
        async with turn(turns):
            self.log.append(f"{name} begins")
            await self.gates[name].wait()
            self.log.append(f"{name} ends")


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def settle() -> None:
    """Let everybody go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_call_waits_for_the_one_before_it(calls: Calls) -> None:
    session = Turns()
    tasks = [calls.call(name, session) for name in ("1", "2")]
    await settle()
    assert calls.log == ["1 begins"]
    calls.gates["2"].set()
    calls.gates["1"].set()
    await asyncio.gather(*tasks)
    assert calls.log == ["1 begins", "1 ends", "2 begins", "2 ends"]


async def test_calls_of_different_sessions_do_not_wait_for_each_other(calls: Calls) -> None:
    tasks = [calls.call(name, Turns()) for name in ("1", "2")]
    await settle()
    assert calls.log == ["1 begins", "2 begins"]
    for gate in calls.gates.values():
        gate.set()
    await asyncio.gather(*tasks)


async def test_a_call_of_many_sessions_is_not_overtaken(calls: Calls) -> None:
    a, b = Turns(), Turns()
    tasks = [calls.call("a", a), calls.call("both", a, b), calls.call("b", b)]
    await settle()
    assert calls.log == ["a begins"]
    for gate in calls.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert calls.log == ["a begins", "a ends", "both begins", "both ends", "b begins", "b ends"]


async def test_the_same_session_twice_in_a_call_is_one_turn(calls: Calls) -> None:
    session = Turns()
    task = calls.call("1", session, session)
    calls.gates["1"].set()
    await task


async def test_a_call_that_is_given_up_while_it_waits_lets_nobody_overtake(calls: Calls) -> None:
    session = Turns()
    first, second, third = (calls.call(name, session) for name in "123")
    await settle()
    second.cancel()
    await settle()
    assert calls.log == ["1 begins"]
    calls.gates["1"].set()
    calls.gates["3"].set()
    await asyncio.gather(first, third)
    assert calls.log == ["1 begins", "1 ends", "3 begins", "3 ends"]


async def test_a_call_that_fails_ends_its_turn() -> None:
    session = Turns()
    with pytest.raises(ZeroDivisionError):
        async with turn([session]):
            raise ZeroDivisionError
    async with turn([session]):
        pass
