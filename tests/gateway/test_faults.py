"""The model server goes wrong in every way, clients leave in the middle: each error is the right one, and its own.

After every fault each session goes on from where its answered calls have left it.
"""

import asyncio
import json

import grpc
import numpy as np
import pytest

from sluice.wire.statuses import http_status
from sluice.wire.tensors import read_tensor
from tests.gateway.here import Adder, Gate, Here, eventually, refused, refused_as_tf_serving, running
from tests.gateway.puppet import Puppet


def spoiled(outputs):
    """The new state of rows whose total is above 1000 is not a number."""
    bad = outputs["total"][:, 0] > 1000
    return outputs | {"h": np.where(bad[:, None], np.nan, outputs["h"])}


async def test_a_state_that_would_not_be_finite_stays_as_it_was_and_mates_are_untouched(here):
    adder, *others = await here.adders(4)
    await adder.goes_on()
    here.puppet.twist = spoiled
    response, *_ = await asyncio.gather(adder.step((5000, 0)), *(other.goes_on() for other in others))
    refused(response, 422, "state_not_finite")
    assert (await adder.view())["step"] == 1
    await adder.goes_on()
    for other in others:
        await other.goes_on()


async def test_an_infinite_state_after_a_scan_is_refused_too(here):
    adder = await here.open()
    here.puppet.twist = lambda outputs: outputs | {"h": np.full_like(outputs["h"], -np.inf)}
    refused(await adder.scan([[1, 2], [3, 4]]), 422, "state_not_finite")
    here.puppet.twist = None
    await adder.goes_on()


async def test_an_output_that_is_not_finite_is_null_and_the_state_moves(here):
    adder = await here.open()
    here.puppet.twist = lambda outputs: outputs | {"total": np.array([[np.nan, np.inf]], np.float32)}
    response = await adder.step((1, 2))
    assert response.json()["outputs"] == {"total": [None, None], "doubled": [2, 4]}
    here.puppet.twist = None
    adder.added((1, 2))
    await adder.goes_on()


WRONG_ANSWERS = {
    "too few rows": lambda out: {name: array[:-1] for name, array in out.items()},
    "too many rows": lambda out: {name: np.concatenate([array, array]) for name, array in out.items()},
    "no total": lambda out: {name: array for name, array in out.items() if name != "total"},
    "no state": lambda out: {name: array for name, array in out.items() if name != "h"},
    "nothing": lambda out: {},
    "another dtype": lambda out: out | {"total": out["total"].astype(np.float64)},
    "a state of another dtype": lambda out: out | {"h": out["h"].astype(np.float16)},
    "a state of another width": lambda out: out | {"h": np.concatenate([out["h"]] * 2, axis=1)},
    "a scalar": lambda out: out | {"h": np.float32(3)},
    "texts": lambda out: out | {"h": np.full(out["h"].shape, b"text", object)},
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
async def test_an_answer_that_is_not_as_promised_moves_nothing(here, wrong):
    adders = await here.adders(3)
    await asyncio.gather(*(adder.goes_on() for adder in adders))
    here.puppet.twist = WRONG_ANSWERS[wrong]
    for response in await asyncio.gather(*(adder.step((9, 9)) for adder in adders)):
        refused(response, 502, "backend_error")
    refused(await adders[0].scan([[9, 9]]), 502, "backend_error")
    here.puppet.twist = None
    await asyncio.gather(*(adder.goes_on() for adder in adders))


@pytest.mark.parametrize(
    "fault", ["INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "ABORTED", "UNIMPLEMENTED", "DATA_LOSS", "PERMISSION_DENIED"]
)
async def test_the_model_servers_own_error_is_passed_on(here, fault):
    adder, other = await here.adders(2)

    async def fail(_):
        return grpc.StatusCode[fault]

    here.puppet.before = fail
    for response in await asyncio.gather(adder.step(), other.step()):
        assert "as the test told me" in refused(response, 502, "backend_error")["error"]
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
    assert "as the test told me" in refused_as_tf_serving(response, http_status(fault), "backend_error")
    here.puppet.before = None
    await asyncio.gather(adder.goes_on(), other.goes_on())


async def test_a_step_that_the_model_refuses_does_not_spoil_its_mates(here):
    async def reject(request):
        return grpc.StatusCode.INVALID_ARGUMENT if (read_tensor(request.inputs["x"]) == 666).any() else None

    here.puppet.before = reject
    bad, *others = await here.adders(5)
    response, *_ = await asyncio.gather(bad.step((666, 0)), *(other.goes_on() for other in others))
    refused(response, 400, "bad_request")
    await asyncio.gather(bad.goes_on(), *(other.goes_on() for other in others))


@pytest.mark.parametrize("said", ["UNAVAILABLE", "CANCELLED"])
async def test_a_call_that_the_model_server_drops_is_unavailable_and_may_be_repeated(here, said):
    adder = (await here.adders(1))[0]

    async def drop(_):
        return grpc.StatusCode[said]

    here.puppet.before = drop
    response = await adder.step()
    refused(response, 503, "backend_unavailable")
    assert response.headers["retry-after"] == "1"
    here.puppet.before = None
    await adder.goes_on()


async def test_a_model_server_that_dies_with_a_batch_moves_nothing_and_serves_again(here):
    adders = await here.adders(3)
    await asyncio.gather(*(adder.goes_on() for adder in adders))
    Gate(here.puppet)
    tasks = [asyncio.create_task(adder.step((9, 9))) for adder in adders]
    await here.puppet.until_running(1)
    await here.puppet.stop()
    for response in await asyncio.gather(*tasks):
        refused(response, 503, "backend_unavailable")
        assert response.headers["retry-after"] == "1"
    refused(await adders[0].step(), 503, "backend_unavailable")
    here.puppet.before = None
    await here.puppet.start()
    await eventually(lambda: answered(here))
    await asyncio.gather(*(adder.goes_on() for adder in adders))


async def answered(here):
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
    return response.status_code == 200


async def test_a_request_to_an_unknown_model_while_the_model_server_is_away_is_unavailable(here):
    await here.puppet.stop()
    response = await here.http.post("/v1/models/never-seen:predict", json={"instances": [[1, 2]]})
    refused_as_tf_serving(response, 503, "backend_unavailable")
    assert response.headers["retry-after"] == "1"


async def test_a_deadline_that_passes_while_a_step_runs_moves_nothing(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    going_on = asyncio.create_task(other.goes_on())
    response = await adder.step(headers={"Sluice-Timeout-Ms": "30"})
    assert "Sluice-Timeout-Ms" in refused(response, 504, "deadline_exceeded")["error"]
    gate.open()
    await going_on
    await eventually(here.nothing_left)
    await asyncio.gather(adder.goes_on(), other.goes_on())


async def test_a_patient_client_is_answered_though_its_batch_mate_was_in_a_hurry(puppet):
    async with running(puppet, in_flight=1) as here:
        first, patient, hurried = await here.adders(3)
        blocking, holding = asyncio.Event(), asyncio.Event()
        gates = iter([blocking, holding])

        async def wait(_):
            await next(gates).wait()

        puppet.before = wait
        tasks = [asyncio.create_task(first.goes_on())]
        await puppet.until_running(1)
        in_a_hurry = asyncio.create_task(hurried.step(headers={"Sluice-Timeout-Ms": "300"}))
        tasks.append(asyncio.create_task(patient.goes_on()))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sum"].waiting_rows == 2)
        blocking.set()
        await eventually(lambda: puppet.batches[-1] == ("step", 2))
        refused(await in_a_hurry, 504, "deadline_exceeded")
        holding.set()
        await asyncio.gather(*tasks)
        puppet.before = None
        await asyncio.gather(*(adder.goes_on() for adder in (first, patient, hurried)))


async def test_a_deadline_that_passes_while_a_step_waits_moves_nothing(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        other, adder = await here.adders(2)
        going_on = asyncio.create_task(other.goes_on())
        await puppet.until_running(1)
        ran = len(puppet.batches)
        refused(await adder.step(headers={"Sluice-Timeout-Ms": "20"}), 504, "deadline_exceeded")
        response = await here.http.post(
            "/v1/models/sum:predict", json={"instances": [[[1, 1]]]}, headers={"Sluice-Timeout-Ms": "20"}
        )
        refused_as_tf_serving(response, 504, "deadline_exceeded")
        assert len(puppet.batches) == ran
        gate.open()
        await going_on
        await asyncio.gather(adder.goes_on(), other.goes_on())


async def test_a_step_behind_one_that_is_too_late_has_its_own_deadline(puppet):
    gate = Gate(puppet)
    async with running(puppet, in_flight=1) as here:
        adder = await here.open()
        late = asyncio.create_task(adder.step((9, 9), headers={"Sluice-Timeout-Ms": "30"}))
        await puppet.until_running(1)
        patient = asyncio.create_task(adder.goes_on())
        refused(await late, 504, "deadline_exceeded")
        gate.open()
        await patient
        await adder.goes_on()


# Clients that close their connection, over real sockets.


class RawClient:
    """One TCP connection on which a request was written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def asking(cls, here: Here, path: str, body: object) -> "RawClient":
        client = cls(*await asyncio.open_connection("127.0.0.1", here.port))
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(content)}\r\n\r\n"
        client.writer.write(head.encode() + content)
        await client.writer.drain()
        return client

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def raw_step(here: Here, adder: Adder, x=(9, 9), **more) -> RawClient:
    return await RawClient.asking(here, f"/v1/sessions/{adder.id}:step", {"inputs": list(x), **more})


async def _gone(here: Here, count: int) -> bool:
    metrics = await here.metrics()
    return sum(value for name, value in metrics.items() if 'outcome="client_gone"' in name) == count


async def test_a_client_that_leaves_while_its_step_runs_harms_nobody(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    client = await raw_step(here, adder)
    await here.puppet.until_running(1)
    going_on = asyncio.create_task(other.goes_on())
    await client.leave()
    await eventually(lambda: _gone(here, 1))
    assert (await adder.view())["waiting"] == 0
    gate.open()
    await going_on
    await eventually(here.nothing_left)
    assert (await adder.view())["step"] == 0
    await asyncio.gather(adder.goes_on(), other.goes_on())


async def test_a_client_that_leaves_while_its_step_waits_takes_it_along(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    first = await raw_step(here, adder, (1, 1), step=0)
    await here.puppet.until_running(1)
    second = await raw_step(here, adder, (9, 9), step=1)
    await eventually(lambda: _waiting_are(adder, 2))
    await second.leave()
    await eventually(lambda: _waiting_are(adder, 1))
    gate.open()
    status = await first.reader.readline()
    assert b"200" in status
    await first.leave()
    adder.added((1, 1))
    await asyncio.gather(adder.goes_on(), other.goes_on())
    assert here.puppet.batches.count(("step", 1)) >= 1


async def _waiting_are(adder: Adder, count: int) -> bool:
    return await adder.waiting() == count


async def test_a_client_that_leaves_when_it_was_answered_can_ask_for_the_answer_again(here):
    adder = await here.open()
    for n in range(20):
        client = await raw_step(here, adder, (n, 1), step=n)
        await client.leave()
        response = await adder.step((n, 1), step=n)  # moved or not: the same answer comes
        assert response.json() == adder.added((n, 1))
    await adder.goes_on()


async def test_a_client_that_leaves_in_the_middle_of_its_body_asked_nothing(here):
    adder = await here.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"POST /v1/sessions/{adder.id}:step HTTP/1.1\r\nHost: g\r\nContent-Length: 50\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: _gone(here, 1))
    await adder.goes_on()


async def test_a_client_that_leaves_takes_all_parts_of_a_split_request_along(here):
    gate = Gate(here.puppet)
    largest = here.gateway.settings.batching.max_rows
    client = await RawClient.asking(here, "/v1/models/plain:predict", {"instances": [[1, 1]] * (5 * largest)})
    await here.puppet.until_running(2)
    await client.leave()
    await eventually(lambda: here.gateway.engine.scheduler.dispatchers["plain"].waiting_rows == 0)
    gate.open()
    await eventually(here.nothing_left)
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
    assert response.json() == {"predictions": [[2, 4]]}


async def test_a_second_request_on_the_connection_is_answered_too(here):
    adder = await here.open()
    for _ in range(3):
        await adder.goes_on()  # httpx keeps the connection
    response = await adder.step((1, 2, 3))
    refused(response, 400, "shape_mismatch")
    await adder.goes_on()


async def test_a_body_that_is_refused_for_its_size_leaves_the_server_well(here):
    adder = await here.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    head = f"POST /v1/sessions/{adder.id}:step HTTP/1.1\r\nHost: g\r\nContent-Length: 99999999999\r\n\r\n"
    writer.write(head.encode())
    assert b"413" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await adder.goes_on()


async def test_a_gateway_stops_while_it_asks_a_model_server_that_is_not_there(tmp_path):
    async with running(Puppet(tmp_path), reached=False) as here:  # never started
        response = await here.http.get("/readyz")
        assert response.status_code == 503
