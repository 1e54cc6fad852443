"""Sequences in chunks over the doors: answers as of whole ones, short ones between the chunks of long ones, parts."""

import asyncio

import httpx
import numpy as np
import pytest
from tritonclient.http.aio import InferenceServerClient, InferInput

from sluice.gateway.core import backlog
from sluice.gateway.http import events as predict_events
from tests.gateway.here import Gate, events_of, eventually, refused_as_tf_serving, running, unread
from tests.gateway.test_sequences import answer_of, span

STRIDES = "/v1/models/strides:predict"
EVENTS = {"accept": "text/event-stream"}


async def events(here, body, path=STRIDES):
    """The events of a stream, as (name, data)."""
    async with here.http.stream("POST", path, json=body, headers=EVENTS) as response:
        return await events_of(response)


async def streams_counted(here):
    """How many `:predict` requests ended how."""
    about, end = 'sluice_requests_total{call="predict",model="strides",outcome="', '"}'
    metrics = await here.metrics()
    return {
        name.removeprefix(about).removesuffix(end): count for name, count in metrics.items() if name.startswith(about)
    }


async def test_rows_of_any_length_are_answered_in_order_as_if_they_ran_whole(here):
    rows = [span(23), span(1), span(64), span(4), span(5, start=7)]
    response = await here.http.post(STRIDES, json={"instances": rows})
    assert response.json() == {"predictions": [answer_of(row) for row in rows]}
    assert {signature for signature, _ in here.puppet.batches} == {"scan"}
    response = await here.http.post(STRIDES, json={"instances": [span(65)]})
    assert "64" in refused_as_tf_serving(response, 413, "sequence_too_long")


async def test_v2_takes_them_too(here):
    async with InferenceServerClient(here.http.base_url.netloc.decode()) as client:
        given = InferInput("x", [1, 10, 2], "FP32").set_data_from_numpy(np.array([span(10)], np.float32))
        found = await client.infer("strides", [given])
    assert found.as_numpy("total").tolist() == [answer_of(span(10))["total"]]


async def test_a_short_row_runs_before_the_long_one_that_came_before_it_is_done(puppet):
    async with running(puppet, in_flight=1) as here:
        first, rest = asyncio.Event(), asyncio.Event()

        async def before(_):
            await first.wait()
            if len(puppet.batches) > 4:  # one, the long one's first chunk, and a turn or two
                await rest.wait()

        async def ask(length):
            response = await here.http.post(STRIDES, json={"instances": [span(length)]})
            assert response.json() == {"predictions": [answer_of(span(length))]}

        await ask(1)  # so that the contract is known
        puppet.before = before
        long = asyncio.create_task(ask(64))
        await puppet.until_running(1)
        short = asyncio.create_task(ask(3))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["strides"].waiting_rows == 1)
        first.set()
        await short
        assert not long.done()
        rest.set()
        await long


async def test_it_is_told_how_sequences_run_now(puppet):
    for model, chunks in (("strides", {"serving_default": 4}), ("spans", {"serving_default": 0}), ("sum", {})):
        async with running(puppet) as here:
            assert (await here.http.get(f"/v1/models/{model}/buckets")).json()["chunks"] == chunks


async def test_the_setting_goes_before_the_contract(puppet):
    async with running(puppet, scan_chunks={"strides": 0}) as here:
        response = await here.http.post(STRIDES, json={"instances": [span(23)]})
        assert response.json() == {"predictions": [answer_of(span(23))]}
        assert puppet.batches == [("sequences", 1)]


async def test_each_version_on_which_the_setting_has_no_effect_is_warned_of_once(puppet, logs):
    puppet.versions["spans"] = [1, 2]
    async with running(puppet, scan_chunks={"strides": 8, "spans": 8, "sum": 0}) as here:
        for model in ("strides", "spans", "spans", "sum", "plain"):
            await here.http.get(f"/v1/models/{model}/contract")
        warned = [each for each in logs if each["event"] == "setting has no effect"]
    assert {each["log_level"] for each in warned} == {"warning"}
    assert {each["setting"] for each in warned} == {"scan_chunks"}
    assert [(each["model"], each["version"]) for each in warned] == [("spans", 1), ("spans", 2), ("sum", 1)]
    assert all("no scan" in each["reason"] for each in warned)


async def test_parts_come_as_events_and_make_the_answer(here):
    rows = [span(9), span(2)]
    *parts, done = await events(here, {"instances": rows})
    assert done == ("done", {})
    assert {name for name, _ in parts} == {"part"}
    for number, row in enumerate(rows):
        own = [data for _, data in parts if data["row"] == number]
        assert [data["start"] for data in own] == list(range(0, len(row), 4))
        whole = answer_of(row)
        assert [step for data in own for step in data["outputs"]["running"]] == whole["running"]
        assert own[-1]["outputs"]["total"] == whole["total"]
        assert all("total" not in data["outputs"] for data in own[:-1])
    metrics = await here.metrics()
    assert metrics['sluice_requests_total{call="predict",model="strides",outcome="ok"}'] == 1
    versioned = await events(here, {"instances": rows}, "/v1/models/strides/versions/1:predict")
    assert versioned[-1] == ("done", {})


@pytest.mark.parametrize(
    ("accept", "streamed"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("application/json, text/event-stream", True),
        ("application/json;q=0.9, text/event-stream", True),
        ("*/*;q=0.1,text/event-stream ; q=0.2", True),
        ("application/json;q=0.1, */*, text/event-stream;q=0.2", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0.000, */*;q=0", False),
        ("application/json, text/event-stream;q=0.5", False),
        ("text/event-stream;q=0.5, */*", False),
        ("text/event-stream;q=0.5, application/*;q=0.6, */*;q=0.1", False),
        ("text/event-stream-of-mine", False),
        ("text/event-stream;q=nan", True),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
async def test_events_come_to_who_would_rather_have_them_than_json(here, accept, streamed):
    response = await here.http.post(STRIDES, json={"instances": [span(3)]}, headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream" if streamed else "application/json")


async def test_several_accept_headers_count_as_one(here):
    for first, streamed in (("application/json;q=0.5", True), ("application/json", False)):
        headers = [("accept", first), ("accept", "text/event-stream;q=0.7")]
        response = await here.http.post(STRIDES, json={"instances": [span(3)]}, headers=headers)
        assert response.headers["content-type"].startswith("text/event-stream") == streamed


async def test_a_stream_ends_with_the_error_that_ended_it(puppet):
    async with running(puppet) as here:

        def spoil(outputs):
            return outputs if len(puppet.batches) < 2 else outputs | {"h": outputs["h"][:, :1]}

        puppet.twist = spoil
        *parts, (name, data) = await events(here, {"instances": [span(9)]})
        assert [name for name, _ in parts] == ["part"]
        assert (name, data["code"]) == ("error", "backend_error")
        assert await streams_counted(here) == {"backend_error": 1}


async def test_a_bug_in_the_middle_of_a_stream_cuts_it_and_is_counted(here, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(predict_events, "encode_part", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        await events(here, {"instances": [span(9)]})
    assert await streams_counted(here) == {"internal": 1}


async def test_who_leaves_a_stream_frees_its_row(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        task = asyncio.create_task(events(here, {"instances": [span(64)]}))
        await puppet.until_running(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        scheduler = here.gateway.engine.scheduler
        [batch] = scheduler.dispatchers["strides"].running
        await eventually(lambda: batch.tickets[0].outcome is not None)
        gate.open()
        await eventually(lambda: not scheduler.busy)
        assert len(puppet.batches) == 1


async def test_who_leaves_after_the_first_part_is_counted_as_gone(puppet):
    async with running(puppet, in_flight=1) as here:
        rest = holding_back_all_but(puppet, 1)
        async with here.http.stream("POST", STRIDES, json={"instances": [span(64)]}, headers=EVENTS) as response:
            assert (await anext(response.aiter_lines())) == "event: part"

        async def counted():
            return await streams_counted(here)

        assert await eventually(counted) == {"client_gone": 1}
        rest.set()
        await eventually(here.nothing_left)


def holding_back_all_but(puppet, batches):
    """From now on so many batches run, and the others when what is returned is set."""
    rest, first = asyncio.Event(), len(puppet.batches) + batches

    async def before(_):
        if len(puppet.batches) > first:
            await rest.wait()

    puppet.before = before
    return rest


async def test_who_does_not_read_a_stream_gets_an_error_in_place_of_the_rest(puppet, monkeypatch):
    monkeypatch.setattr(backlog, "_LEAST", 3)
    async with running(puppet, queue_rows=4) as here:
        rest = holding_back_all_but(puppet, 1)
        async with here.http.stream("POST", STRIDES, json={"instances": [span(64)]}, headers=EVENTS) as response:
            with unread(here):
                rest.set()
                await eventually(here.nothing_left)
            *parts, (name, data) = await events_of(response)
        assert [data["start"] for _, data in parts] == list(range(0, 4 * len(parts), 4))
        assert 4 <= len(parts) < 16
        assert (name, data["code"], data["details"]) == ("error", "queue_full", {"limit": 4})
        assert "Read faster" in data["error"]
        assert await streams_counted(here) == {"queue_full": 1}
        *parts, done = await events(here, {"instances": [span(64)]})  # who reads never meets the limit
        assert (len(parts), done) == (16, ("done", {}))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (STRIDES + "?x=1", "takes no query"),
        ("/v1/models/strides/versions/+1:predict", "whole number"),
        ("/v1/models/strides%zz:predict", "percent-encoded"),
    ],
)
@pytest.mark.parametrize("headers", [EVENTS, {}])
async def test_what_is_no_call_is_none_whatever_is_accepted(here, path, said, headers):
    response = await here.http.post(path, json={"instances": [span(3)]}, headers=headers)
    assert said in refused_as_tf_serving(response, 400, "bad_request")
    assert here.puppet.batches == []


async def test_a_stream_that_does_not_begin_is_refused_as_any_call(puppet):
    async with running(puppet, queue_rows=1, in_flight=1) as here:
        gate = Gate(puppet)
        first = asyncio.create_task(here.http.post(STRIDES, json={"instances": [span(3)]}))
        await puppet.until_running(1)
        second = asyncio.create_task(here.http.post(STRIDES, json={"instances": [span(3)]}))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["strides"].waiting_rows == 1)
        refusal = await here.http.post(STRIDES, json={"instances": [span(3)]}, headers={"Accept": "Text/Event-Stream"})
        assert "full" in refused_as_tf_serving(refusal, 429, "queue_full")
        gate.open()
        await asyncio.gather(first, second)


async def test_chunks_are_no_longer_than_the_longest_sequence(puppet):
    async with running(puppet, scan_chunks={"strides": 10**6}) as here:
        response = await here.http.post(STRIDES, json={"instances": [span(3)]})
        assert response.json() == {"predictions": [answer_of(span(3))]}
        assert (await here.http.get("/v1/models/strides/buckets")).json()["chunks"] == {"serving_default": 64}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("/v1/models/spans:predict", {"instances": [span(3)]}, 400, "unsupported_by_model", "no scan"),
        ("/v1/models/plain:predict", {"instances": [[1.0, 2.0]]}, 400, "unsupported_by_model", "no scan"),
        ("/v1/models/nosuch:predict", {"instances": [1]}, 404, "model_not_found", "nosuch"),
        (STRIDES, {"instances": []}, 400, "empty_input", "one row"),
        (STRIDES, {"instances": [span(65)]}, 413, "sequence_too_long", "64"),
        (STRIDES, {}, 400, "missing_input", "instances"),
    ],
)
async def test_what_cannot_be_answered_in_parts_is_refused_before_anything_runs(here, path, body, status, code, said):
    response = await here.http.post(path, json=body, headers=EVENTS)
    assert said in refused_as_tf_serving(response, status, code)
    assert here.puppet.batches == []
