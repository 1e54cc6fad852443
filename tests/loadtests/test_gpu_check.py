"""The GPU check: its batches are a gateway's, it finds a wrong answer, and it allows the sizes that are worth it."""

import asyncio
from contextlib import asynccontextmanager
from math import inf

import grpc
import numpy as np
import pytest

from loadtests.gpu_check.asked import Refused, Server, Version
from loadtests.gpu_check.check import Found, allowed, allowed_by_all, check
from loadtests.gpu_check.rows import batch, bounds_of, difference, draw
from sluice.policy.batch import Batch, Lane
from sluice.policy.contract_document import parse_contract
from sluice.policy.sequences import grouped, lane_of
from tests.gateway.puppet import SPANS, Puppet

SIZES = (1, 4)


@asynccontextmanager
async def puppets(folder, count):
    for place in range(count):
        (folder / str(place)).mkdir()
    started = [Puppet(folder / str(place)) for place in range(count)]
    servers = [Server(puppet.address) for puppet in started]
    try:
        for puppet in started:
            await puppet.start()
        yield *started, *servers
    finally:
        for server in servers:
            server.close()
        for puppet in started:
            await puppet.stop()


async def checked(cpu, server, model):
    return await asyncio.to_thread(lambda: [*check(cpu, server, Version(model, 1), SIZES, 0.0)])


@pytest.mark.parametrize("model", ["sum", "spans", "words", "halves", "sides", "speller", "texts"])
async def test_a_server_that_answers_as_the_cpu_does_is_right_at_every_size_and_length(tmp_path, model):
    async with puppets(tmp_path, 2) as (_, other, cpu, server):
        found = await checked(cpu, server, model)
    assert found
    for each in found:
        assert each.wrong(1e-6) == [], each
        assert {*each.differences} == {*each.batch_s} == {*SIZES}
    assert {rows for _, rows in other.batches} == {*SIZES}


async def test_a_server_that_is_wrong_in_large_batches_is_found_out(tmp_path):
    def off(outputs):
        return {name: array + (len(array) > 1) * 0.01 for name, array in outputs.items()}

    async with puppets(tmp_path, 2) as (_, other, cpu, server):
        other.twist = off
        found = await checked(cpu, server, "spans")
    assert [each.wrong(1e-6) for each in found] == [[4]] * len(found)
    assert allowed_by_all(found, 1e-6) == [1]


async def test_a_size_that_is_refused_is_told_and_not_allowed(tmp_path):
    async def full(request):
        rows = request.inputs["x"].tensor_shape.dim[0].size
        return grpc.StatusCode.RESOURCE_EXHAUSTED if rows > 1 else None

    async with puppets(tmp_path, 2) as (_, other, cpu, server):
        other.before = full
        found = await checked(cpu, server, "spans")
    assert [each.refused for each in found] == [{4: "RESOURCE_EXHAUSTED: as the test told me"}] * len(found)
    assert allowed_by_all(found, 1e-6) == [1]


async def test_a_model_that_one_of_them_does_not_serve_is_told(tmp_path):
    async with puppets(tmp_path, 2) as (_, other, cpu, server):
        other.versions.pop("spans")
        with pytest.raises(Refused, match="NOT_FOUND"):
            await checked(cpu, server, "spans")


def test_batches_are_those_of_a_gateway():
    contract = parse_contract(SPANS)
    signature = next(each for each in contract.signatures.values() if each.kind == "sequences")
    (axis,) = (each.name for each in signature.ragged_axes)
    bounds, dice = {axis: 8}, np.random.default_rng(1)
    rows = [draw(contract, signature, {axis: length}, dice) for length in (8, 3, 1)]
    columns = {name: [row.inputs[name] for row in rows] for name in signature.inputs}
    lane = Lane("spans", 1, signature.name)
    tickets = grouped(lane, signature, columns, lambda _: (8,), 4, 0.0).tickets
    of_gateway = Batch(lane_of(lane, signature, (8,)), tickets, 3, 3, 0.0).stacked()
    ours = batch(signature, rows, bounds)
    assert ours.keys() == of_gateway.keys()
    for name, array in of_gateway.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array)


def test_lengths_are_the_least_and_the_greatest_that_are_told():
    contract = parse_contract(SPANS)
    for signature in contract.signatures.values():
        ends = bounds_of(signature)
        for axis, given in signature.bounds.items():
            assert [each[axis] for each in ends] == [given[0], given[-1]]


@pytest.mark.parametrize(
    ("answer", "expected", "is_"),
    [
        ([1.0, 200.0], [1.0, 100.0], 1.0),  # relative above 1
        ([0.5], [0.25], 0.25),
        ([np.nan], [1.0], inf),
        ([1.0, 2.0], [1.0], inf),
    ],
)
def test_a_difference_is_relative_above_one(answer, expected, is_):
    assert difference({"y": np.array(answer)}, {"y": np.array(expected)}) == is_


def test_what_is_no_number_is_equal_or_is_not():
    words = {"y": np.array([b"a", b"b"], object)}
    assert difference(words, words) == 0
    assert difference({"y": words["y"][::-1]}, words) == inf
    assert difference({}, words) == inf


@pytest.mark.parametrize(
    ("batch_s", "sizes"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, [8]),  # a GPU that is not busy: filler costs nothing
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, [1]),  # larger batches give nothing
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 2.4, 16: 4.8}, [4]),
        ({1: 1.0, 8: 2.0, 64: 8.0}, [1, 8, 64]),
        ({}, []),
    ],
)
def test_sizes_are_allowed_while_rows_a_second_grow_and_where_filler_would_cost(batch_s, sizes):
    assert allowed(batch_s) == sizes


def test_all_signatures_get_what_one_of_them_wants():
    a, b = Version("a", 1), Version("b", 1)
    found = [Found(a, "x", {}, batch_s={1: 1.0, 8: 1.0}), Found(b, "y", {}, batch_s={1: 1.0, 8: 8.0})]
    assert allowed_by_all(found, 1e-3) == [1, 8]
