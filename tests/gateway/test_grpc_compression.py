"""Compressed messages over gRPC, by its own client and Triton's: read, bounded, and answered in the same encoding."""

import gzip
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc.aio as triton

from sluice.wire.grpc_frames import framed
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.tensors import read_tensor, write_tensor
from tests.gateway.echo import EACH, LIMIT, ONCE
from tests.gateway.here import PATIENCE_S
from tests.gateway.http2 import connected
from tests.gateway.stub import Stub, lists, many

ROWS = np.arange(600, dtype=np.float32).reshape(300, 2) % 7
WORDS = b"the quick brown fox " * 1000
ALGORITHMS = [grpc.Compression.Gzip, grpc.Compression.Deflate]


def compressed(message):
    packed = gzip.compress(message)
    return b"\1" + len(packed).to_bytes(4) + packed


@pytest.fixture
async def raw(served):
    async with connected(served.port) as raw:
        yield raw


async def asked(raw, wire, path=ONCE, **fields):
    id = raw.call(path, **fields)
    raw.send(id, wire, end=True)
    return await raw.ended(id)


async def test_a_compressed_message_is_answered_in_its_encoding(raw):
    accepted = "identity, deflate, gzip"
    stream = await asked(raw, compressed(WORDS), grpc_encoding="gzip", grpc_accept_encoding=accepted)
    assert (stream.head["grpc-encoding"], stream.data[0]) == ("gzip", 1)
    assert len(stream.data) < 1000
    assert (stream.messages, stream.status) == ([WORDS], 0)


async def test_small_answers_go_as_they_are_among_compressed_ones(raw):
    wire = framed(b"abc") + compressed(WORDS) + compressed(b"")
    stream = await asked(raw, wire, EACH, grpc_encoding="gzip")
    assert stream.messages == [b"abc", WORDS, b""]
    assert stream.data[:8] == framed(b"abc")


@pytest.mark.parametrize("fields", [{}, {"grpc_encoding": "identity"}, {"grpc_encoding": "snappy"}])
async def test_a_client_that_only_reads_compressed_messages_gets_none(raw, fields):
    stream = await asked(raw, framed(WORDS), grpc_accept_encoding="identity,deflate,gzip", **fields)
    assert "grpc-encoding" not in stream.head
    assert stream.data == framed(WORDS)


async def test_a_bomb_ends_its_own_call(raw):
    stream = await asked(raw, compressed(bytes(LIMIT + 1)), grpc_encoding="gzip")
    assert (stream.status, stream.head["sluice-code"]) == (8, "body_too_large")
    assert (await asked(raw, compressed(bytes(LIMIT)), grpc_encoding="gzip")).messages == [bytes(LIMIT)]


async def test_an_encoding_that_is_not_known_is_told_which_are(raw):
    stream = await asked(raw, compressed(WORDS), grpc_encoding="snappy")
    assert (stream.status, stream.head["grpc-accept-encoding"]) == (12, "identity,deflate,gzip")
    assert "snappy" in stream.sentence


# gRPC's own client, against the echo and the gateway.


@pytest.mark.parametrize("compression", ALGORITHMS)
async def test_gRPCs_own_client_gets_back_what_it_sends_compressed(served, compression):
    messages = [WORDS, b"", b"abc", bytes(1_000_000), np.random.default_rng(1).bytes(100_000)]
    async with grpc.aio.insecure_channel(served.address, compression=compression) as channel:
        for message in messages:
            assert await channel.unary_unary(ONCE)(message, timeout=PATIENCE_S) == message
        stream = channel.stream_stream(EACH)(iter(messages), timeout=PATIENCE_S)
        assert [message async for message in stream] == messages


@pytest.fixture(params=ALGORITHMS)
async def channel(here, request) -> AsyncIterator[grpc.aio.Channel]:
    address = f"127.0.0.1:{here.app.state.grpc.port}"
    async with grpc.aio.insecure_channel(address, compression=request.param) as channel:
        yield channel


async def test_a_compressed_predict_is_answered(channel):
    request = tfs.PredictRequest()
    request.model_spec.name = "plain"
    write_tensor(request.inputs["x"], ROWS)
    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    reply = tfs.PredictResponse.FromString(await predict(request.SerializeToString(), timeout=PATIENCE_S))
    np.testing.assert_array_equal(read_tensor(reply.outputs["y"]), 2 * ROWS)


async def test_compressed_steps_on_a_stream_are_answered(here, channel):
    adders = await here.adders(80)
    ids = [adder.id for adder in adders]
    stream = Stub(channel).Stream(timeout=PATIENCE_S)
    for _ in range(2):
        await stream.write(many(ids, ROWS[:80], tag=3))
        reply: pb.StepManyResponse = await stream.read()
        wanted = [adder.added(tuple(x)) for adder, x in zip(adders, ROWS[:80].tolist(), strict=True)]
        assert lists(reply.outputs)["total"] == [each["outputs"]["total"] for each in wanted]
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_tritons_client_may_compress(here, algorithm):
    given = triton.InferInput("x", list(ROWS.shape), "FP32")
    given.set_data_from_numpy(ROWS)

    async def requests():
        for _ in range(2):
            yield {"model_name": "plain", "inputs": [given]}

    async with triton.InferenceServerClient(f"127.0.0.1:{here.app.state.grpc.port}") as client:
        result = await client.infer("plain", [given], compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROWS)
        streamed = client.stream_infer(requests(), compression_algorithm=algorithm)
        async for result, error in streamed:
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROWS)
