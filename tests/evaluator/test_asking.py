"""Rows go to the gateway in requests of one size, and answers come back in the order of the rows."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sluice.evaluator.asking import Asking, client_of
from sluice.evaluator.tasks.task import Subject
from sluice.policy.errors import BadRequest


class Puppet:
    """A client whose model doubles; later requests are answered first."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.running = self.most = 0

    async def predict(self, model: str, rows: Mapping[str, Any], outputs: Any, **which: Any) -> Mapping[str, Any]:
        assert (model, which) == ("m", {"signature": "s", "version": 3})
        column = rows["x"]
        self.sizes.append(len(column))
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(20 - len(self.sizes) % 7):
            await asyncio.sleep(0)
        self.running -= 1
        if any(np.max(row) == 13 for row in column):
            raise BadRequest("thirteen")
        if isinstance(column, list):
            doubled = np.empty(len(column), object)
            doubled[:] = [2 * row for row in column]
            return {"y": doubled}
        return {"y": 2 * column}


def asking(puppet: Puppet, batch_size: int, *, filled: bool = False) -> Asking:
    return Asking(puppet, Subject("m", 3, None, {}), batch_size, filled)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
async def test_answers_are_in_the_order_of_the_rows_whatever_the_batch_size(batch_size: int) -> None:
    rows = np.arange(100, 200, dtype=np.float32)[:, np.newaxis]
    answer = await asking(Puppet(), batch_size).predict({"x": rows}, ["y"], "s")
    np.testing.assert_array_equal(answer["y"], 2 * rows)


async def test_requests_have_the_batch_size_and_the_last_one_what_is_left() -> None:
    puppet = Puppet()
    await asking(puppet, 32).predict({"x": np.zeros((100, 1))}, ["y"], "s")
    assert sorted(puppet.sizes) == [4, 32, 32, 32]


async def test_filled_requests_all_have_the_batch_size_and_what_fills_them_is_not_answered() -> None:
    puppet, rows = Puppet(), np.arange(100, 200, dtype=np.float32)
    answer = await asking(puppet, 32, filled=True).predict({"x": rows}, ["y"], "s")
    assert puppet.sizes == [32] * 4
    np.testing.assert_array_equal(answer["y"], 2 * rows)


@pytest.mark.parametrize("filled", [False, True])
async def test_rows_of_different_lengths_keep_their_lengths(filled: bool) -> None:
    rows = [np.full(length, length) for length in (3, 1, 4, 1, 5)]
    answer = await asking(Puppet(), 2, filled=filled).predict({"x": rows}, ["y"], "s")
    assert [row.tolist() for row in answer["y"]] == [(2 * row).tolist() for row in rows]


async def test_no_more_than_a_bounded_number_of_rows_is_on_its_way() -> None:
    puppet = Puppet()
    await asking(puppet, 1).predict({"x": np.zeros((1000, 1))}, ["y"], "s")
    assert puppet.most == 128
    puppet = Puppet()
    await asking(puppet, 100).predict({"x": np.zeros((1000, 1))}, ["y"], "s")
    assert puppet.most == 2


async def test_a_refusal_is_told_as_the_gateway_said_it() -> None:
    with pytest.raises(BadRequest, match="thirteen"):
        await asking(Puppet(), 1).predict({"x": np.arange(50.0)[:, np.newaxis]}, ["y"], "s")


@pytest.mark.parametrize(
    ("exact", "headers"),
    [(False, {"Sluice-Priority": "low"}), (True, {"Sluice-Priority": "low", "Sluice-Batch": "exact"})],
)
async def test_live_traffic_goes_first_and_exact_batches_are_asked_for(exact: bool, headers: Mapping[str, str]) -> None:
    async with client_of("http://127.0.0.1:9", exact=exact) as client:
        assert client._transport._headers == headers
