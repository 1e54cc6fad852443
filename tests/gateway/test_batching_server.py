"""A model server that batches, too: requests whose batches meet there are answered, and an operator is told."""

import asyncio

import grpc
import numpy as np
import pytest

from tests.gateway.batching_server import TEXT, BatchingServer
from tests.gateway.here import eventually, refused_as_tf_serving, running
from tests.gateway.sides import document, put


@pytest.fixture
async def here(puppet):
    async with running(puppet, poll_s=1000) as here:
        yield here


async def totals(here, rows):
    response = await here.http.post("/v1/models/sum:predict", json={"instances": rows})
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


async def test_two_batches_that_meet_are_both_answered_and_an_operator_is_told_once(here, puppet, logs):
    await totals(here, [[[1, 1]]])
    assert "notes" not in (await here.http.get("/readyz")).json()
    server = BatchingServer(puppet, meeting=2)
    short, long = await asyncio.gather(totals(here, [[[1, 2]]]), totals(here, [[[1, 2], [3, 4]]]))
    assert (short, long) == ([[[1, 2]]], [[[1, 2], [4, 6]]])
    assert server.refused == 2
    assert [size for _, size in puppet.batches] == [1] * 5
    response = await here.http.get("/readyz")
    assert response.status_code == 200
    (note,) = response.json()["notes"]
    assert "model 'sum'" in note
    assert "--enable_batching" in note
    assert (await here.metrics())['sluice_batch_collisions_total{model="sum"}'] == 2
    assert len([entry for entry in logs if "batches, too" in entry["event"]]) == 1


async def ragged(here, n):
    rows = [[[float(n), 1.0]] * (1 + (n + each) % 7) for each in range(3)]
    response = await here.http.post("/v1/models/spans:predict", json={"instances": rows})
    assert response.status_code == 200, response.text
    for row, answer in zip(rows, response.json()["predictions"], strict=True):
        assert answer["total"] == [n * len(row), len(row)]
        assert len(answer["running"]) == len(row)


async def scanned(here, n):
    adder = await here.open()
    for length in (1 + n % 9, 1 + n % 5):
        response = await adder.scan([[n, 1]] * length)
        assert response.status_code == 200, response.text
        totals = [adder.added((n, 1))["outputs"]["total"] for _ in range(length)]
        assert response.json() == {
            "outputs": {"total": totals, "doubled": (2 * np.array(totals)).tolist()}, "step": adder.steps
        }  # fmt: skip
    await adder.goes_on()


async def generated(here, n):
    word = "abcdefghijklmnop"[: 1 + n % 15]
    response = await here.http.post("/v1/models/speller:generate", json={"instances": [word]})
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["text"] == word


async def test_ragged_rows_scans_and_generation_are_all_answered_rightly(here, puppet):
    server = BatchingServer(puppet)
    await asyncio.gather(*(act(here, n) for n in range(12) for act in (ragged, scanned, generated)))
    assert server.refused > 0
    await eventually(here.nothing_left)


async def test_a_batch_that_is_always_refused_is_an_error_that_says_why(here, puppet):
    async def refuse(_):
        return grpc.StatusCode.FAILED_PRECONDITION, TEXT

    puppet.before = refuse
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
    assert "from different tasks" in refused_as_tf_serving(response, 400, "bad_request")
    assert len(puppet.batches) == 4


async def recognized(http, rows):
    response = await http.post("/v1/models/sides:recognize", json={"instances": rows})
    assert response.status_code == 200, response.text
    return response.json()["results"]


async def test_a_recognize_request_with_more_rows_than_the_model_servers_batches_runs_in_parts(puppet, tmp_path):
    put(tmp_path, document())
    async with running(puppet, poll_s=1000, calibrations=tmp_path) as here:
        rows = np.random.default_rng(0).uniform(0, 1, (300, 2)).tolist()
        wanted = await recognized(here.http, rows)
        puppet.batches.clear()
        server = BatchingServer(puppet, largest=50)
        assert await recognized(here.http, rows) == wanted
        refused = server.refused
        assert 1 <= refused <= 3  # batches that were on their way when the first was refused
        assert await recognized(here.http, rows) == wanted
        assert server.refused == refused
        assert {size for _, size in puppet.batches[-9:]} == {50, 28, 48}  # 300 are batches of 128, 128 and 48
        assert "sides" in (await here.http.get("/readyz")).json()["notes"][0]


async def test_so_do_steps_scans_ragged_rows_and_generation(here, puppet):
    server = BatchingServer(puppet, largest=2)
    await asyncio.gather(*(act(here, n) for n in range(12) for act in (ragged, scanned, generated)))
    assert server.refused > 0
    assert (await totals(here, [[[1, 2]]] * 300)) == [[[1, 2]]] * 300
    await eventually(here.nothing_left)


async def test_a_part_that_the_model_refuses_fails_the_request(here, puppet):
    async def refuse(request):
        rows = request.inputs["x"].tensor_shape.dim[0].size
        said = f"Task size {rows} is larger than maximum input batch size 2"
        return grpc.StatusCode.INVALID_ARGUMENT, said if rows > 2 else "of these values"

    puppet.before = refuse
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]] * 3})
    assert "of these values" in refused_as_tf_serving(response, 400, "bad_request")


async def test_a_model_server_that_comes_in_its_place_is_not_blamed(puppet):
    async with running(puppet) as here:
        backend = here.gateway.catalog._backend
        backend.batching.add("plain")
        backend.largest["plain", 1, "serving_default", ()] = 2
        assert (await here.http.get("/readyz")).json()["notes"]
        await puppet.stop()
        await eventually(lambda: not here.gateway.catalog.notes())
        assert not backend.largest
