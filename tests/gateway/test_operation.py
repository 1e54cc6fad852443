"""What an operator sees: models, contracts, metrics."""

import asyncio
import json

import numpy as np
import pytest

from sluice.policy.contract_document import parse_contract
from tests.gateway import puppet as puppets
from tests.gateway.here import Gate, eventually, refused, running
from tests.gateway.puppet import CONTRACT


@pytest.mark.parametrize("nonsense", [{}, {"contract": np.array([3])}, {"contract": np.array([b"{"], object)}], ids=str)
async def test_a_contract_signature_that_answers_nonsense_is_a_fault_of_its_own_model_only(
    puppet, monkeypatch, nonsense
):
    monkeypatch.setitem(puppets.SIGNATURES["sum"], "contract", lambda probe: nonsense)
    async with running(puppet) as here:
        response = await here.http.post("/v1/models/sum/sessions", json={})
        assert "version 1" in refused(response, 503, "backend_unavailable")["error"]
        response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
        assert response.json() == {"predictions": [[2, 4]]}


async def test_models_are_listed_with_what_they_can_do(here):
    for name in ("plain", "sum"):
        await here.http.get(f"/v1/models/{name}/contract")
    assert (await here.http.get("/v1/models")).json() == {
        "models": [
            {
                "name": "plain",
                "versions": [{"version": "1", "state": "AVAILABLE", "labels": []}],
                "kinds": ["rows"],
                "summary": "",
            },
            {
                "name": "sum",
                "versions": [{"version": "1", "state": "AVAILABLE", "labels": []}],
                "kinds": ["session", "rows"],
                "summary": "Adds up what a session sends.",
            },
        ]
    }


async def test_a_contract_is_shown_as_written_and_in_words(here):
    body = (await here.http.get("/v1/models/sum/contract")).json()
    assert body["contract"] == json.loads(json.dumps(CONTRACT))
    parse_contract(body["contract"])
    assert [*body["shapes"]] == [*body["contract"]["signatures"]] == ["step", "scan", "serving_default"]
    assert body["shapes"]["step"].startswith("takes x float32 [batch, feature=2], what to add")
    plain = (await here.http.get("/v1/models/plain/contract", params={"version": "1"})).json()
    assert plain["contract"] is None
    assert "serving_default" in plain["shapes"]
    refused(await here.http.get("/v1/models/nothing/contract"), 404, "model_not_found")
    refused(await here.http.get("/v1/models/sum/contract", params={"version": "7"}), 404, "version_not_found")
    refused(await here.http.get("/v1/models/sum/contract", params={"version": "x"}), 400, "bad_request")


METRICS = {
    **{
        f"process_{name}": set()
        for name in (
            "cpu_seconds_total",
            "max_fds",
            "open_fds",
            "resident_memory_bytes",
            "start_time_seconds",
            "virtual_memory_bytes",
        )
    },
    "sluice_ready": set(),
    "sluice_model_troubled": {"model"},
    "sluice_requests_total": {"call", "model", "outcome"},
    "sluice_rows_total": {"model", "version", "signature"},
    "sluice_batches_total": {"model", "version", "signature"},
    "sluice_filler_rows_total": {"model", "version", "signature"},
    "sluice_queue_wait_seconds": {"model", "version", "signature"},
    "sluice_run_seconds": {"model", "version", "signature"},
    "sluice_batch_rows": {"model", "version", "signature"},
    "sluice_backend_errors_total": {"model", "reason"},
    "sluice_sessions_ended_total": {"model", "reason"},
    "sluice_queue_rows": {"model"},
    "sluice_in_flight_batches": {"model"},
    "sluice_sessions_active": {"model"},
}


def labels_of(sample):
    _, _, inside = sample.partition("{")
    return {each.split("=")[0] for each in inside.rstrip("}").split(",") if each} - {"le"}


async def test_metrics_have_known_names_and_labels_and_tell_of_no_session(here):
    adder = await here.open(session="very-secret-id")
    await adder.goes_on()
    await adder.step((1, 2, 3))
    here.puppet.twist = lambda outputs: {}
    await adder.step()
    here.puppet.twist = None
    await here.http.delete("/v1/sessions/very-secret-id")
    await here.http.get("/v1/sessions/never-was")
    await here.http.post("/v1/models/sum:predict", json={"instances": [[[1, 1]]]})
    text = (await here.http.get("/metrics")).text
    assert "secret" not in text and "never-was" not in text
    seen = {}
    for sample in await here.metrics():
        name = sample.partition("{")[0]
        for suffix in ("_bucket", "_sum", "_count"):
            name = name.removesuffix(suffix)
        seen.setdefault(name, set()).update(labels_of(sample))
    assert seen == METRICS


async def test_metrics_have_as_many_lines_with_many_sessions_as_with_one(here):
    await (await here.open()).goes_on()
    await here.metrics()  # which counts itself from now on
    one = await here.metrics()
    adders = await here.adders(200)
    await asyncio.gather(*(adder.goes_on() for adder in adders))
    many = await here.metrics()
    assert many.keys() == one.keys()
    assert many['sluice_sessions_active{model="sum"}'] == 201


async def test_rows_batches_and_filler_add_up(puppet):
    async with running(puppet, allowed_batch_sizes="4,8") as here:
        gate = Gate(puppet)
        adders = await here.adders(11)
        tasks = [asyncio.create_task(adder.goes_on()) for adder in adders]
        await puppet.until_running(1)
        gate.open()
        await asyncio.gather(*tasks)
        metrics = await here.metrics()
        lane = '{model="sum",signature="step",version="1"}'
        rows, filler = metrics[f"sluice_rows_total{lane}"], metrics[f"sluice_filler_rows_total{lane}"]
        assert rows == 11
        assert rows + filler == sum(size for _, size in puppet.batches)
        assert metrics[f"sluice_batches_total{lane}"] == len(puppet.batches)
        assert metrics[f"sluice_batch_rows_sum{lane}"] == 11
        assert metrics[f"sluice_batch_rows_count{lane}"] == metrics[f"sluice_run_seconds_count{lane}"]
        assert metrics[f"sluice_queue_wait_seconds_count{lane}"] == 11
        assert metrics['sluice_requests_total{call="step",model="sum",outcome="ok"}'] == 11
        assert metrics['sluice_sessions_active{model="sum"}'] == 11


async def test_gauges_tell_what_waits_and_runs(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        adders = await here.adders(4)
        tasks = [asyncio.create_task(adders[0].goes_on())]
        await puppet.until_running(1)
        tasks += [asyncio.create_task(adder.goes_on()) for adder in adders[1:]]
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sum"].waiting_rows == 3)
        metrics = await here.metrics()
        assert metrics['sluice_queue_rows{model="sum"}'] == 3
        assert metrics['sluice_in_flight_batches{model="sum"}'] == 1
        gate.open()
        await asyncio.gather(*tasks)
        metrics = await here.metrics()
        assert (metrics['sluice_queue_rows{model="sum"}'], metrics['sluice_in_flight_batches{model="sum"}']) == (0, 0)


async def test_outcomes_are_counted_by_code(here):
    adder = await here.open()
    await adder.goes_on()
    await adder.step((1, 2, 3))
    await adder.step((1, 2), step=7)
    here.puppet.twist = lambda outputs: {}
    await adder.step()
    metrics = await here.metrics()
    for outcome in ("ok", "shape_mismatch", "step_mismatch", "backend_error"):
        assert metrics[f'sluice_requests_total{{call="step",model="sum",outcome="{outcome}"}}'] == 1
    assert metrics['sluice_backend_errors_total{model="sum",reason="backend_error"}'] == 1


async def test_refusals_are_counted_with_their_model_if_there_is_one(here):
    for model, body, status in (("sum", {"ttl_s": -1}, 400), ("made-up", {}, 404)):
        assert (await here.http.post(f"/v1/models/{model}/sessions", json=body)).status_code == status
    metrics = await here.metrics()
    assert metrics['sluice_requests_total{call="open_session",model="sum",outcome="bad_request"}'] == 1
    assert metrics['sluice_requests_total{call="open_session",model="",outcome="model_not_found"}'] == 1


async def test_sessions_that_end_are_counted_by_reason(puppet):
    async with running(puppet, sessions_per_model=1, session_evict=True) as here:

        async def counted(reason):
            return (await here.metrics()).get(f'sluice_sessions_ended_total{{model="sum",reason="{reason}"}}') == 1

        await here.open()
        evicted_the_first = await here.open(ttl_s=1000)
        await here.http.delete(f"/v1/sessions/{evicted_the_first.id}")
        await here.open(ttl_s=0.01)
        await eventually(lambda: counted("expired"))
        await here.open()
        puppet.versions["sum"] = []
        await eventually(lambda: counted("version_gone"))
        assert await counted("evicted")
        assert await counted("closed")


async def test_made_up_names_do_not_become_labels(here):
    for n in range(5):
        await here.http.post(f"/v1/models/made-up-{n}:predict", json={"instances": [1]})
        await here.http.post(f"/v1/models/made-up-{n}/sessions", json={})
        await here.http.get(f"/v1/made-up-{n}")
    assert "made-up" not in (await here.http.get("/metrics")).text


@pytest.mark.parametrize("ended", [[], [1]], ids=["forgotten", "remembered by the model server"])
async def test_a_model_that_goes_is_not_found_and_is_found_when_it_is_back(puppet, ended):
    async with running(puppet) as here:
        adder = await here.open()
        puppet.versions["sum"], puppet.ended["sum"] = [], ended
        await eventually(lambda: "sum" not in here.gateway.catalog.models)
        refused(await adder.step(), 410, "session_version_gone")
        refused(await here.http.post("/v1/models/sum/sessions", json={}), 404, "model_not_found")
        puppet.versions["sum"], puppet.ended["sum"] = [1], []
        await (await here.open()).goes_on()


async def test_many_requests_to_an_unknown_model_are_all_answered(here):
    paths = ["/v1/models/sum:predict", "/v1/models/nothing:predict"] * 10
    responses = await asyncio.gather(*(here.http.post(path, json={"instances": [[[1, 1]]]}) for path in paths))
    assert [response.status_code for response in responses] == [200, 404] * 10
