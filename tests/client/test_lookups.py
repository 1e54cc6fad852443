"""What many callers need is asked for once, and none of them waits longer than its own time; in made-up time."""

import asyncio
from typing import Any

import pytest

from sluice.client import NoAnswer
from sluice.client.contracts import OutputDtypes
from sluice.client.lookups import Lookups
from sluice.client.predict import Asked, Predictions
from sluice.client.values import ModelSpec

pytestmark = pytest.mark.looptime


class Gateway:
    """Answers after `seconds`, a number for each time it was asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[tuple[str, float]] = []
        self.given_up = 0
        self.error: Exception | None = None

    async def ask(self, key: str, timeout_s: float) -> int:
        self.asked.append((key, timeout_s))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return len(self.asked)


async def test_callers_share_a_lookup_and_later_ones_ask_again() -> None:
    gateway = Gateway(1)
    lookups = Lookups(gateway.ask)
    assert await asyncio.gather(*(lookups.of("a", 5) for _ in range(9)), lookups.of("a", 2)) == [1] * 10
    assert await asyncio.gather(lookups.of("a", 5), lookups.of("b", 5)) == [3, 3]
    assert [key for key, _ in gateway.asked] == ["a", "a", "b"]


async def test_a_caller_waits_no_longer_than_its_own_time() -> None:
    gateway = Gateway(30)
    lookups, now = Lookups(gateway.ask), asyncio.get_running_loop().time

    async def waited(timeout_s: float) -> float:
        before = now()
        with pytest.raises(NoAnswer, match=f"within {timeout_s} s"):
            await lookups.of("a", timeout_s)
        return now() - before

    assert await asyncio.gather(*(waited(each) for each in (9, 1, 5, 1))) == pytest.approx([10, 2, 6, 2])
    assert (gateway.asked, gateway.given_up) == ([("a", 9)], 1)


async def test_a_lookup_that_may_not_take_as_long_as_a_caller_waits_is_not_shared() -> None:
    gateway = Gateway(5)
    lookups = Lookups(gateway.ask)
    short = asyncio.create_task(lookups.of("a", 1))
    await asyncio.sleep(0)
    assert await lookups.of("a", 9) == 2
    with pytest.raises(NoAnswer):
        await short


async def test_a_failure_is_all_callers_and_is_not_kept() -> None:
    gateway = Gateway(1)
    gateway.error = NoAnswer("Nothing listens there.")
    lookups = Lookups(gateway.ask)
    errors = await asyncio.gather(*(lookups.of("a", 5) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in errors] == ["Nothing listens there."] * 3
    assert len(gateway.asked) == 1
    gateway.error = None
    assert await lookups.of("a", 5) == 2


async def test_a_caller_that_gives_up_leaves_the_lookup_to_the_others() -> None:
    gateway = Gateway(1)
    lookups = Lookups(gateway.ask)
    first, second = (asyncio.create_task(lookups.of("a", 5)) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second == 1
    alone = asyncio.create_task(lookups.of("a", 5))
    await asyncio.sleep(0.5)
    alone.cancel()
    await asyncio.wait([alone])
    assert await lookups.of("a", 5) == 3
    assert gateway.given_up == 1


class Silent:
    """A transport, or what asks for a contract, of a gateway that does not answer."""

    async def signatures(self, _: ModelSpec, timeout_s: float) -> Any:
        await asyncio.sleep(timeout_s)
        raise NoAnswer("It did not answer.")

    async def contract(self, _: str, __: str, timeout_s: float) -> Any:
        await asyncio.sleep(timeout_s)
        raise NoAnswer("It did not answer.")


@pytest.mark.parametrize("what", ["signatures", "contract"])
async def test_first_calls_do_not_wait_for_each_other(what: str) -> None:
    silent, now = Silent(), asyncio.get_running_loop().time
    predictions, dtypes = Predictions(silent), OutputDtypes(silent.contract)  # type: ignore[arg-type]

    async def ended() -> float:
        with pytest.raises(NoAnswer):
            if what == "signatures":
                await predictions.run(Asked(ModelSpec("sum"), "serving_default", {}, ()), 2)
            else:
                await dtypes.of("step", "sum", "1", 2)
        return now()

    begin = now()
    assert await asyncio.gather(*(ended() for _ in range(4))) == pytest.approx([begin + 2] * 4)
