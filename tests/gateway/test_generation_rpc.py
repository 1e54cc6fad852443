"""`sluice.v1.Generation`, by gRPC's own client: events, options, every error, and calls that are given up."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from sluice.gateway.core import backlog
from sluice.wire.grpc_frames import framed
from sluice.wire.messages.v1 import generation_pb2 as pb
from tests.gateway.here import PATIENCE_S, Gate, eventually, running
from tests.gateway.http2 import connected
from tests.gateway.stub import dialled, failed, tensor
from tests.gateway.test_generate import dies_at, generate, said

PATH = "/sluice.v1.Generation/Generate"
LONGEST = "abcdefghijklmnop"


class Generator:
    """`await generator.events(texts=[…])`: it takes the request's fields."""

    def __init__(self, channel):
        self.channel = channel
        self._call = channel.unary_stream(PATH, pb.GenerateRequest.SerializeToString, pb.GenerateEvent.FromString)

    def begin(self, timeout=PATIENCE_S, **fields):
        return self._call(pb.GenerateRequest(**{"model": "speller", **fields}), timeout=timeout)

    async def events(self, timeout=PATIENCE_S, **fields):
        return [event async for event in self.begin(timeout, **fields)]

    async def results(self, **fields):
        """Each instance's sequences, in the request's order, as HTTP writes them."""
        events = await self.events(**fields)
        assert {event.WhichOneof("event") for event in events} == {"result"}
        found = {event.result.index: [written(each) for each in event.result.sequences] for event in events}
        assert len(found) == len(events)
        return [found[index] for index in range(len(events))]


def written(sequence):
    assert not sequence.tokens
    return {name: getattr(sequence, name) for name in ("text", "score", "steps", "finished")}


@asynccontextmanager
async def asking(here):
    async with dialled(here) as stub:
        yield Generator(stub.channel)


@pytest.fixture
async def generator(here):
    async with asking(here) as generator:
        yield generator


async def over_http(here, instances, **more):
    """The results, a list for each instance."""
    results = (await generate(here, instances, **more)).json()["results"]
    return [result if isinstance(result, list) else [result] for result in results]


def spelt(*words, length=None):
    """Words as the model's input, each padded to the longest."""
    length = length or max(map(len, words))
    return tensor([[*map(ord, word), *[0] * (length - len(word))] for word in words], np.int32)


# What is answered.


async def test_every_instance_has_a_result_which_is_that_of_HTTP(here, generator):
    words = ["a", "hello", "zebracrossing", "ox", "hello"]
    results = await generator.results(texts=words)
    assert results == [[said(word)] for word in words]
    assert results == await over_http(here, words)
    assert await generator.results(texts=["ox"], version="1") == [[said("ox")]]
    assert await generator.results(texts=["hello"], max_steps=3) == await over_http(here, ["hello"], max_steps=3)


@pytest.mark.parametrize("name", ["x", ""])
async def test_instances_may_be_arrays_with_their_lengths_beside_them(generator, name):
    assert await generator.results(inputs={name: spelt("ox", "hi")}) == [[said("ox")], [said("hi")]]
    padded = {name: spelt("hello", "a", length=9), "lengths": tensor([5, 1], np.int32)}
    assert await generator.results(inputs=padded) == [[said("hello")], [said("a")]]


async def test_tokens_come_in_order_before_their_result_where_they_are_wanted(generator):
    events = await generator.events(texts=["hi", "a"], stream_tokens=True)
    first, second = ([each for each in events if getattr(each, each.WhichOneof("event")).index == n] for n in (0, 1))
    assert [each.token for each in first[:-1]] == [
        pb.Token(index=0, step=0, token=8, text="h"),
        pb.Token(index=0, step=1, token=9, text="i"),
    ]
    assert written(first[-1].result.sequences[0]) == said("hi")
    assert [each.WhichOneof("event") for each in second] == ["token", "result"]


async def test_a_token_is_sent_while_the_rest_is_still_to_come(here, generator):
    seen, opened = 0, asyncio.Event()

    async def before(_):
        nonlocal seen
        seen += 1
        if seen > 2:  # the encoder's batch and the decoder's first one
            await opened.wait()

    here.puppet.before = before
    events = aiter(generator.begin(texts=["hi"], stream_tokens=True))
    assert (await anext(events)).token.text == "h"
    opened.set()
    assert [each.WhichOneof("event") async for each in events] == ["token", "result"]


async def test_a_beam_gives_the_best_sequences_and_no_token_before(here, generator):
    beam = {"width": 3, "n_best": 3, "length_penalty": 0.5}
    events = await generator.events(texts=["hi"], beam=beam, stream_tokens=True)
    assert len(events) == 1
    assert [[written(each) for each in events[0].result.sequences]] == await over_http(here, ["hi"], beam=beam)
    assert await generator.results(texts=["hi"], beam={"width": 3}) == [[said("hi")]]


async def test_sampling_gives_the_same_as_over_HTTP_for_the_same_seed(here, generator):
    for sampling in ({"temperature": 8.0, "seed": 3}, {"temperature": 9.0, "top_k": 5, "top_p": 0.7, "seed": 0}):
        results = await generator.results(texts=["hello", "other"], sampling=sampling)
        assert results == await over_http(here, ["hello", "other"], sampling=sampling)
    assert await generator.results(texts=["hello"], sampling={"seed": 1}) == [[said("hello")]]


# What is refused, and what fails.


@pytest.mark.parametrize(
    ("fields", "status", "code", "word"),
    [
        ({}, "INVALID_ARGUMENT", "bad_request", "neither"),
        ({"texts": ["hi"], "inputs": {"x": spelt("hi")}}, "INVALID_ARGUMENT", "bad_request", "both"),
        ({"texts": ["hi"], "version": "1", "label": "stable"}, "INVALID_ARGUMENT", "bad_request", "both"),
        ({"texts": ["hi"], "version": "new"}, "INVALID_ARGUMENT", "bad_request", "whole number"),
        ({"texts": ["hi"], "max_steps": 0}, "INVALID_ARGUMENT", "bad_request", "max_steps"),
        ({"texts": ["hi"], "max_steps": 99}, "INVALID_ARGUMENT", "bad_request", "from 1 to 17"),
        ({"texts": ["hi"], "beam": {}}, "INVALID_ARGUMENT", "bad_request", "beam.width"),
        ({"texts": ["hi"], "beam": {"width": 2, "n_best": 0}}, "INVALID_ARGUMENT", "bad_request", "to 2 here; got 0"),
        ({"texts": ["hi"], "beam": {"width": 2}, "sampling": {"seed": 1}}, "INVALID_ARGUMENT", "bad_request", "either"),
        ({"texts": ["hi"], "sampling": {}}, "INVALID_ARGUMENT", "bad_request", "seed"),
        ({"texts": ["hi"], "sampling": {"seed": 1, "top_p": 0.0}}, "INVALID_ARGUMENT", "bad_request", "top_p"),
        ({"texts": ["hi", ""]}, "INVALID_ARGUMENT", "empty_input", "Row 1"),
        ({"texts": ["hi", LONGEST + "q"]}, "INVALID_ARGUMENT", "sequence_too_long", "16"),
        ({"inputs": {"y": spelt("hi")}}, "INVALID_ARGUMENT", "unknown_input", "'y'"),
        ({"inputs": {"x": spelt("hi"), "": spelt("hi")}}, "INVALID_ARGUMENT", "unknown_input", "''"),
        ({"inputs": {"lengths": tensor([2], np.int32)}}, "INVALID_ARGUMENT", "missing_input", "'x'"),
        ({"inputs": {"x": tensor([[1.5]])}}, "INVALID_ARGUMENT", "dtype_mismatch", "'x'"),
        ({"inputs": {"x": tensor([1, 2], np.int32)}}, "INVALID_ARGUMENT", "shape_mismatch", "'x'"),
        ({"inputs": {"x": pb.GenerateRequest().inputs["x"]}}, "INVALID_ARGUMENT", "bad_request", "tensor"),
        ({"inputs": {"x": spelt("hi"), "lengths": tensor([3], np.int32)}}, "INVALID_ARGUMENT", "shape_mismatch", "3"),
        ({"texts": ["hi"], "model": "spans"}, "INVALID_ARGUMENT", "unsupported_by_model", "sequences"),
        ({"texts": ["hi"], "model": "nosuch"}, "NOT_FOUND", "model_not_found", "nosuch"),
        ({"texts": ["hi"], "version": "9"}, "NOT_FOUND", "version_not_found", "9"),
    ],
)
async def test_what_cannot_be_generated_is_refused_before_anything_runs(here, generator, fields, status, code, word):
    assert word in (await failed(generator.events(**fields), status, code))["error"]
    assert here.puppet.batches == []


async def test_too_many_instances_are_refused(puppet):
    async with running(puppet, queue_rows=4, allowed_batch_sizes="1,2,4") as here, asking(here) as generator:
        facts = await failed(generator.events(texts=["hi"] * 5), "INVALID_ARGUMENT", "batch_too_large")
        assert facts["limit"] == 4


async def test_bytes_that_are_no_request_are_refused(generator):
    call = generator.channel.unary_stream(PATH)

    async def events():
        return [event async for event in call(b"\xff", timeout=PATIENCE_S)]

    assert "GenerateRequest" in (await failed(events(), "INVALID_ARGUMENT", "bad_request"))["error"]


async def test_a_model_server_that_dies_in_the_middle_gives_an_error_where_the_result_would_be(here, generator):
    dies_at(here.puppet, 2)
    token, error = await generator.events(texts=["hello"], stream_tokens=True)
    assert token.token.text == "h"
    assert (error.error.index, error.error.error.code) == (0, "backend_unavailable")
    assert len(error.error.error.message) > 10
    assert error.error.error.retry_after_s > 0
    here.puppet.before = None
    assert await generator.results(texts=["hello"]) == [[said("hello")]]
    metrics = await here.metrics()
    for outcome in ("backend_unavailable", "ok"):
        assert metrics[f'sluice_requests_total{{call="generate",model="speller",outcome="{outcome}"}}'] == 1


async def test_the_other_instances_go_on_when_one_fails(puppet):
    async with running(puppet, allowed_batch_sizes="1") as here, asking(here) as generator:
        dies_at(puppet, 1)
        events = await generator.events(texts=["hello", "hi", "ox"])
        failures = [each.error.index for each in events if each.WhichOneof("event") == "error"]
        words = {each.result.sequences[0].text for each in events if each.WhichOneof("event") == "result"}
        assert (len(failures), len(words)) == (1, 2)


async def test_a_bug_fails_the_call_and_is_logged(here, generator, logs, monkeypatch):
    async def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(here.gateway.generations, "begin", broken)
    await failed(generator.events(texts=["hi"]), "INTERNAL", "internal")
    assert [entry["call"] for entry in logs if entry["event"] == "request failed"] == ["generate"]


# Who leaves, and who does not read.


async def freed(here):
    """The metrics, when nothing is generated any more."""
    metrics = {}

    async def idle():
        metrics.update(await here.metrics())
        return metrics.get('sluice_generating_instances{model="speller"}') == 0

    await eventually(idle)
    return metrics


def outcomes(metrics, outcome):
    return metrics.get(f'sluice_generations_total{{model="speller",outcome="{outcome}",version="1"}}', 0)


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_client_that_leaves_frees_its_rows(here, how):
    gate = Gate(here.puppet)
    async with asking(here) as generator:
        call = generator.begin(texts=[LONGEST] * 3)
        await here.puppet.until_running(1)
        if how == "cancel":
            call.cancel()
            await eventually(call.done)
        else:
            await generator.channel.close(None)
        assert outcomes(await freed(here), "client_gone") == 3
        gate.open()
        await eventually(here.nothing_left)
    assert [signature for signature, _ in here.puppet.batches] == ["encode"]


async def test_a_call_is_given_up_at_its_clients_deadline(here, generator):
    gate = Gate(here.puppet)
    try:
        [event] = await generator.events(timeout=0.1, texts=["hi"])
        told = event.error.error.code
    except grpc.aio.AioRpcError as error:  # the client's own clock was quicker than the gateway's answer
        told = error.code().name.lower()
    assert told == "deadline_exceeded"
    metrics = await freed(here)
    gate.open()
    await eventually(here.nothing_left)
    assert outcomes(metrics, "client_gone") + outcomes(metrics, "deadline_exceeded") == 1


async def test_without_a_deadline_the_gateways_own_one_ends_an_instance(puppet):
    async with running(puppet, timeout_ms=50) as here, asking(here) as generator:
        await here.gateway.catalog.find("speller", None)  # which takes longer than a request may
        gate = Gate(puppet)
        [event] = await generator.events(timeout=None, texts=["hi"])
        assert event.error.error.code == "deadline_exceeded"
        gate.open()
        await eventually(here.nothing_left)


async def test_a_client_that_does_not_read_holds_nobody_up_and_finds_all_events_later(here, generator):
    async with connected(here.app.state.grpc.port, reads=False, window=20) as raw:
        id = raw.call(PATH)
        request = pb.GenerateRequest(model="speller", texts=[LONGEST], stream_tokens=True)
        raw.send(id, framed(request.SerializeToString()), end=True)
        await raw.flush()
        assert await generator.results(texts=["hi"]) == [[said("hi")]]
        assert outcomes(await freed(here), "end") == 2
        assert not raw.streams[id].ended
        raw.h2.increment_flow_control_window(100_000, id)
        stream = await raw.ended(id)
        events = [pb.GenerateEvent.FromString(message) for message in stream.messages]
        assert "".join(each.token.text for each in events[:-1]) == LONGEST
        assert events[-1].result.sequences[0].text == LONGEST
        assert stream.status == 0


async def test_a_client_that_leaves_too_many_events_unread_is_refused_the_rest(puppet, monkeypatch):
    monkeypatch.setattr(backlog, "_LEAST", 3)
    async with running(puppet, queue_rows=4) as here:
        async with connected(here.app.state.grpc.port, reads=False, window=20) as raw:
            id = raw.call(PATH)
            request = pb.GenerateRequest(model="speller", texts=[LONGEST], stream_tokens=True)
            raw.send(id, framed(request.SerializeToString()), end=True)
            await raw.flush()
            stream = await raw.ended(id)
        assert "4 events of this answer" in stream.sentence
        assert stream.tail["sluice-code"] == "queue_full"
        name = 'sluice_requests_total{call="generate",model="speller",outcome="queue_full"}'
        assert (await freed(here))[name] == 1
        async with asking(here) as generator:  # who reads never meets the limit
            assert len(await generator.events(texts=[LONGEST], stream_tokens=True)) == len(LONGEST) + 1


# What is told about it.


async def test_calls_are_counted_by_outcome(here, generator):
    await generator.results(texts=["hi", "ox"])
    await failed(generator.events(texts=["hi"], max_steps=0), "INVALID_ARGUMENT", "bad_request")
    await failed(generator.events(texts=["hi"], model="made-up"), "NOT_FOUND", "model_not_found")
    metrics = await here.metrics()
    told = {name: value for name, value in metrics.items() if 'call="generate"' in name and "_total" in name}
    assert told == {
        'sluice_requests_total{call="generate",model="speller",outcome="ok"}': 1,
        'sluice_requests_total{call="generate",model="speller",outcome="bad_request"}': 1,
        'sluice_requests_total{call="generate",model="",outcome="model_not_found"}': 1,
    }


async def test_health_and_reflection_tell_of_the_service(here, generator):
    channel = generator.channel
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    reply = await check(health_pb2.HealthCheckRequest(service="sluice.v1.Generation"), timeout=PATIENCE_S)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    reflect = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="sluice.v1.Generation")
    [told] = [answer async for answer in reflect(iter([asked]))]
    files = told.file_descriptor_response.file_descriptor_proto
    assert pb.DESCRIPTOR.serialized_pb in files
    assert len(files) == 3  # with the messages of sessions, and Google's timestamp
