"""TensorFlow Serving's predict through the batcher: rows of many clients together, large requests in parts."""

import asyncio
import json
import math

import numpy as np
import pytest

from tests.gateway.here import Gate, eventually, refused_as_tf_serving, running

PLAIN = "/v1/models/plain:predict"


async def predict(here, rows, **more):
    return await here.http.post(PLAIN, json={"instances": rows}, **more)


async def test_rows_come_back_in_order(here):
    assert (await predict(here, [[1, 2], [3, 4]])).json() == {"predictions": [[2, 4], [6, 8]]}
    response = await here.http.post(PLAIN, json={"inputs": {"x": [[1, 2], [3, 4]]}})
    assert response.json() == {"outputs": [[2, 4], [6, 8]]}
    response = await here.http.post("/v1/models/plain/versions/1:predict", json={"instances": [{"x": [1, 2]}]})
    assert response.json() == {"predictions": [[2, 4]]}


async def test_rows_of_several_clients_share_a_batch(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        tasks = [asyncio.create_task(predict(here, [[0, 0]]))]
        await puppet.until_running(1)
        for n in range(1, 6):
            tasks.append(asyncio.create_task(predict(here, [[n, n]] * n)))
        dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
        await eventually(lambda: dispatcher.waiting_rows == 15)
        gate.open()
        for n, response in enumerate(await asyncio.gather(*tasks)):
            assert response.json() == {"predictions": [[2 * n, 2 * n]] * max(n, 1)}
        assert puppet.batches == [("serving_default", 1), ("serving_default", 16)]


async def test_a_request_larger_than_the_largest_batch_is_split_and_joined_in_order(puppet):
    async with running(puppet, allowed_batch_sizes="1,2,4") as here:
        rows = [[n, -n] for n in range(23)]
        assert (await predict(here, rows)).json() == {"predictions": [[2 * n, -2 * n] for n in range(23)]}
        assert sum(size for _, size in puppet.batches) >= 23
        assert {size for _, size in puppet.batches} <= {1, 2, 4}


async def test_a_request_with_more_rows_than_may_ever_wait_is_too_large(puppet):
    async with running(puppet, queue_rows=8, allowed_batch_sizes="1,2,4") as here:
        assert "8" in refused_as_tf_serving(await predict(here, [[1, 1]] * 9), 413, "batch_too_large")
        assert puppet.batches == []


async def test_a_split_request_that_does_not_fit_leaves_nothing_behind(puppet):
    async with running(puppet, queue_rows=8, allowed_batch_sizes="1,2,4", in_flight=1) as here:
        gate = Gate(puppet)
        first = asyncio.create_task(predict(here, [[1, 1]] * 4))
        await puppet.until_running(1)
        second = asyncio.create_task(predict(here, [[2, 2]] * 3))
        dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
        await eventually(lambda: dispatcher.waiting_rows == 3)
        response = await predict(here, [[9, 9]] * 8)
        refused_as_tf_serving(response, 429, "queue_full")
        assert response.headers["retry-after"] == "1"
        assert dispatcher.waiting_rows == 3
        gate.open()
        assert (await first).json() == {"predictions": [[2, 2]] * 4}
        assert (await second).json() == {"predictions": [[4, 4]] * 3}
        await eventually(here.nothing_left)


async def test_requests_of_high_priority_go_first_over_every_door(puppet):
    async with running(puppet, in_flight=1, allowed_batch_sizes="1") as here:
        gate, answered = Gate(puppet), []

        async def sent(number, path, body, **more):
            response = await here.http.post(path, json=body, **more)
            assert response.status_code == 200, response.text
            answered.append(number)

        session = await here.open()
        step, infer = f"/v1/sessions/{session.id}:step", "/v2/models/sum/infer"
        x = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "data": [1, 2]}
        tasks = [asyncio.create_task(sent(0, step, {"inputs": [1, 2]}))]
        await puppet.until_running(1)
        total, dispatcher = "/v1/models/sum:predict", here.gateway.engine.scheduler.dispatchers["sum"]
        for number, path, body, more in (
            (5, infer, {"inputs": [x], "parameters": {"priority": 3}}, {}),
            (4, total, {"instances": [[[1, 1]]]}, {"headers": {"Sluice-Priority": "low"}}),
            (3, total, {"instances": [[[1, 1]]]}, {}),
            (2, total, {"instances": [[[1, 1]]]}, {"headers": {"Sluice-Priority": "high"}}),
            (1, infer, {"inputs": [x], "parameters": {"priority": 1}}, {}),
        ):
            before = dispatcher.waiting_rows
            tasks.append(asyncio.create_task(sent(number, path, body, **more)))
            await eventually(lambda before=before: dispatcher.waiting_rows == before + 1)
        gate.open()
        await asyncio.gather(*tasks)
        assert answered == [0, 2, 1, 3, 5, 4]


async def test_the_open_inference_protocol_takes_the_header_where_its_parameter_says_nothing(puppet):
    async with running(puppet, in_flight=1, allowed_batch_sizes="1") as here:
        gate, answered = Gate(puppet), []

        async def sent(number, **more):
            x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
            await here.http.post("/v2/models/plain/infer", json={"inputs": [x]}, **more)
            answered.append(number)

        tasks = [asyncio.create_task(sent(0))]
        await puppet.until_running(1)
        dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
        for number, more in ((2, {}), (1, {"headers": {"Sluice-Priority": "high"}})):
            before = dispatcher.waiting_rows
            tasks.append(asyncio.create_task(sent(number, **more)))
            await eventually(lambda before=before: dispatcher.waiting_rows == before + 1)
        gate.open()
        await asyncio.gather(*tasks)
        assert answered == [0, 1, 2]


async def test_an_answer_that_cannot_be_written_is_an_error_also_of_a_request_that_had_to_wait(here, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr("sluice.gateway.http.hot.encode_predict", broken)
    response = await asyncio.wait_for(predict(here, [[1, 2]]), 10)  # the first request has to look the model up
    refused_as_tf_serving(response, 500, "internal")


async def test_another_priority_than_the_three_is_refused(here):
    response = await predict(here, [[1, 2]], headers={"Sluice-Priority": "urgent"})
    assert "high, normal, low; got 'urgent'" in refused_as_tf_serving(response, 400, "bad_request")


async def test_requests_of_different_shapes_never_share_a_batch(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)

        async def totals(rows):
            return (await here.http.post("/v1/models/sum:predict", json={"instances": rows})).json()["predictions"]

        tasks = [asyncio.create_task(totals([[[1, 1]]]))]
        await puppet.until_running(1)
        tasks += [asyncio.create_task(totals([[[1, 1]] * length])) for length in (2, 3, 2)]
        dispatcher = here.gateway.engine.scheduler.dispatchers["sum"]
        await eventually(lambda: dispatcher.waiting_rows == 3)
        gate.open()
        answers = await asyncio.gather(*tasks)
        for length, answer in zip((1, 2, 3, 2), answers, strict=True):
            assert answer == [[[n, n] for n in range(1, length + 1)]]
        assert sorted(puppet.batches) == [("serving_default", 1)] * 2 + [("serving_default", 2)]


async def test_numbers_that_are_not_finite_go_in_and_come_out_as_tensorflow_serving_writes_them(here):
    content = b'{"instances": [[NaN, Infinity], [-Infinity, 0.1]]}'
    response = await here.http.post(PLAIN, content=content)
    (nan, inf), (minus, small) = json.loads(response.text)["predictions"]
    assert math.isnan(nan) and inf == math.inf and minus == -math.inf
    assert small == 0.2
    assert "NaN" in response.text and "-Infinity" in response.text


async def test_an_answer_with_too_few_rows_is_a_backend_error_for_all_of_the_batch(here):
    async def totals(n):
        return await here.http.post("/v1/models/sum:predict", json={"instances": [[[n, n]]]})

    here.puppet.twist = lambda outputs: {"total": outputs["total"][:-1]}
    for response in await asyncio.gather(*(totals(n) for n in range(3))):
        assert "rows" in refused_as_tf_serving(response, 502, "backend_error")
    here.puppet.twist = None
    assert (await totals(2)).json() == {"predictions": [[[2, 2]]]}


async def test_without_a_contract_requests_whose_outputs_are_no_rows_are_run_as_they_came(here):
    here.puppet.twist = lambda outputs: {"y": outputs["y"].sum(axis=0)}
    responses = await asyncio.gather(*(here.http.post(PLAIN, json={"inputs": [[n, n], [n, 1]]}) for n in range(3)))
    assert [each.json() for each in responses] == [{"outputs": [4 * n, 2 * n + 2]} for n in range(3)]


async def test_one_poisoned_row_fails_its_own_request_only(puppet):
    import grpc

    from sluice.wire.tensors import read_tensor

    async def reject(request):
        x = read_tensor(request.inputs["x"])
        return grpc.StatusCode.INVALID_ARGUMENT if (x == 666).any() else None

    puppet.before = reject
    async with running(puppet, in_flight=1) as here:
        gate = asyncio.Event()

        async def held(request):
            await gate.wait()
            return await reject(request)

        puppet.before = held
        first = asyncio.create_task(predict(here, [[0, 0]]))
        await puppet.until_running(1)
        tasks = [asyncio.create_task(predict(here, [[n, n]])) for n in (1, 666, 3)]
        dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
        await eventually(lambda: dispatcher.waiting_rows == 3)
        gate.set()
        await first
        one, bad, three = await asyncio.gather(*tasks)
        assert (one.json(), three.json()) == ({"predictions": [[2, 2]]}, {"predictions": [[6, 6]]})
        assert refused_as_tf_serving(bad, 400, "bad_request") == "as the test told me"


async def test_filler_rows_never_reach_a_client(puppet):
    async with running(puppet, allowed_batch_sizes="8") as here:
        assert (await predict(here, [[1, 2]] * 3)).json() == {"predictions": [[2, 4]] * 3}
        assert puppet.batches == [("serving_default", 8)]


async def test_a_version_that_goes_is_not_found_afterwards(puppet):
    async with running(puppet) as here:
        assert (await predict(here, [[1, 2]])).status_code == 200
        puppet.versions["plain"] = [2]
        assert (await predict(here, [[1, 2]])).json() == {"predictions": [[2, 4]]}
        response = await here.http.post("/v1/models/plain/versions/1:predict", json={"instances": [[1, 2]]})
        refused_as_tf_serving(response, 404, "version_not_found")


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-45, 3.4028235e38, 16777217.0])
async def test_a_float32_comes_back_as_it_went(here, value):
    twist_off = np.float32(value)
    here.puppet.twist = lambda outputs: {"y": np.full_like(outputs["y"], twist_off)}
    (got, _), *_ = (await predict(here, [[0, 0]])).json()["predictions"]
    assert np.float32(got) == twist_off
