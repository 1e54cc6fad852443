"""Whatever breaks, a predict call is answered as it was asked; a signature that has changed is noticed."""

import asyncio

import numpy as np
import pytest

from sluice.client import AsyncClient, NoAnswer, SluiceError
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    QueueFull,
    ShapeMismatch,
    SignatureNotFound,
)
from tests.client import over_http
from tests.client.faults import Serve, Time, calling, waits
from tests.client.sums import Cut, Sums


@pytest.mark.parametrize("cut", Cut)
async def test_a_call_whose_connection_breaks_is_sent_again(served: Serve, sums: Sums, time: Time, cut: Cut) -> None:
    sums.faults = [cut]
    async with calling(served, sums, time) as client:
        assert (await client.predict("sum", [2, 4]))["y"].tolist() == [3, 6]
        assert len(time.slept) == 1


@pytest.mark.parametrize("kind", [QueueFull, BackendUnavailable, DeadlineExceeded])
async def test_a_refusal_is_waited_for_as_long_as_it_says(
    served: Serve, sums: Sums, time: Time, kind: type[SluiceError]
) -> None:
    sums.faults = [waits(7, kind), waits(11, kind)]
    async with calling(served, sums, time) as client:
        assert (await client.predict("sum", [2]))["y"].tolist() == [3]
        assert time.slept == [7, 11]


@pytest.mark.parametrize("error", [ShapeMismatch("Wrong."), BackendError("Broken.")])
async def test_what_waiting_does_not_mend_is_not_repeated(
    served: Serve, sums: Sums, time: Time, error: SluiceError
) -> None:
    sums.faults = [error]
    async with calling(served, sums, time) as client:
        with pytest.raises(type(error), match=error.message):
            await client.predict("sum", [2])
        assert (sums.predicts, time.slept) == ([], [])


async def test_signatures_are_those_that_can_be_called(served: Serve, sums: Sums, time: Time) -> None:
    async with calling(served, sums, time) as client:
        assert [*await client.signatures("sum")] == ["serving_default"]
        with pytest.raises(SignatureNotFound, match=r"has no signature 'nope'; it has 'serving_default'\.$"):
            await client.predict("sum", [2], signature="nope")


async def test_attempts_are_bounded(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.BEFORE] * 3
    async with calling(served, sums, time, attempts=3) as client:
        with pytest.raises(NoAnswer):
            await client.predict("sum", [2])


async def test_a_repeat_sends_what_the_first_attempt_sent(served: Serve, sums: Sums, time: Time) -> None:
    sums.faults = [Cut.AFTER]
    async with calling(served, sums, time) as client:
        rows = np.array([2.0, 4.0], np.float32)
        predict = asyncio.create_task(client.predict("sum", rows))
        await asyncio.sleep(0)
        rows[:] = 7
        assert (await predict)["y"].tolist() == [3, 6]


async def test_signatures_are_asked_once_for_many_calls(served: Serve, sums: Sums, time: Time) -> None:
    async with calling(served, sums, time) as client:
        answers = await asyncio.gather(*(client.predict("sum", [row]) for row in range(20)))
        assert [answer["y"].tolist() for answer in answers] == [[1.5 * row] for row in range(20)]
        assert sums.described == 1


async def test_an_input_whose_dtype_has_changed_is_sent_in_the_new_one(served: Serve, sums: Sums, time: Time) -> None:
    sums.dtype = "int32"
    async with calling(served, sums, time) as client:
        assert (await client.predict("sum", [2]))["y"].dtype == np.int32
        sums.dtype = "float32"
        assert (await client.predict("sum", [0.5]))["y"].tolist() == [0.75]
        assert sums.described == 2


async def test_an_output_whose_dtype_has_changed_is_not_cut(served: Serve, sums: Sums, time: Time) -> None:
    sums.dtype = "int32"
    async with calling(served, sums, time) as client:
        await client.predict("sum", [2])
        sums.dtype = "float32"
        answer = (await client.predict("sum", [3]))["y"]
        assert (answer.dtype, answer.tolist()) == (np.float32, [4.5])


async def test_a_wrong_value_is_refused_each_time_it_comes(served: Serve, sums: Sums, time: Time) -> None:
    async with calling(served, sums, time) as client:
        for _ in range(2):
            with pytest.raises(ShapeMismatch, match=r"takes float32 \[batch\]; a value of shape \[1, 1\] came"):
                await client.predict("sum", [[1]])
        assert sums.predicts == []


async def test_the_gateway_gets_the_time_of_the_call_and_calls_share_a_connection(sums: Sums) -> None:
    async with over_http.served(sums) as (url, seen):
        async with AsyncClient(url, timeout_s=10, headers={"Sluice-Priority": "high"}) as client:
            await client.predict("sum", [1])
            await client.predict("sum", [1], timeout_s=90)
        assert [headers["sluice-timeout-ms"] for headers in seen] == ["10000", "10000", "90000"]
        assert [headers["sluice-priority"] for headers in seen] == ["high"] * 3
        assert len({headers["peer"] for headers in seen}) == 1
