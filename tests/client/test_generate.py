"""What the client has generated are the gateway's own sequences, over HTTP and gRPC alike, at once or as a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.client import (
    AsyncClient,
    BadRequest,
    Beam,
    Client,
    Ended,
    Generated,
    NoAnswer,
    NotFound,
    Sampling,
    SluiceError,
    Token,
)
from sluice.client.events import EventReader
from sluice.policy.errors import BackendUnavailable, EmptyInput, ShapeMismatch, UnknownInput, UnsupportedByModel
from sluice.wire.messages.v1 import generation_pb2 as pb
from tests.client.conftest import Urls
from tests.client.faults import Time
from tests.client.to_here import TRANSPORTS, client_of
from tests.gateway.here import Here, eventually, running
from tests.gateway.puppet import ALPHABET, SIGNATURES, SPELLER, Puppet
from tests.gateway.puppet import written as written_contract
from tests.gateway.test_generate import dies_at, generate, said

ANSWERS: dict[str, dict[str, Any]] = {
    "the likeliest": {},
    "a limit of steps": {"max_steps": 3},
    "beams": {"beam": Beam(3, n_best=3, length_penalty=0.5)},
    "the best beam": {"beam": Beam(3)},
    "sampling": {"sampling": Sampling(temperature=8.0, seed=3)},
    "sampling from the likeliest": {"sampling": Sampling(temperature=9.0, top_k=5, top_p=0.7, seed=0)},
}
FLAWS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": "nosuch"}, NotFound, "nosuch"),
    "model that does not generate": ({"model": "spans"}, UnsupportedByModel, "sequences"),
    "version": ({"version": 9}, NotFound, "9"),
    "version and label": ({"version": 1, "label": "stable"}, ValueError, "a version or a label"),
    "no steps": ({"max_steps": 0}, BadRequest, "max_steps"),
    "steps beyond 32 bits": ({"max_steps": 1 << 40}, BadRequest, "max_steps.* 1099511627776"),
    "seed beyond 64 bits": ({"sampling": Sampling(seed=1 << 63)}, BadRequest, "sampling.* 9223372036854775808"),
    "beam": ({"beam": Beam(0)}, BadRequest, "width"),
    "none of the beams": ({"beam": Beam(3, n_best=0)}, BadRequest, r"beam\.n_best.* got 0"),
    "fewer beams than none": ({"beam": Beam(3, n_best=-1)}, BadRequest, r"beam\.n_best.* got -1"),
    "beam and sampling": ({"beam": Beam(2), "sampling": Sampling()}, BadRequest, "either"),
    "NaN": ({"sampling": Sampling(temperature=np.nan)}, BadRequest, "temperature"),
    "no instances": ({"instances": []}, EmptyInput, "one instance or more"),
    "no inputs": ({"instances": {}}, EmptyInput, "one instance or more"),
    "no list": ({"instances": "hi"}, BadRequest, r"a list or an array \[instances, \.\.\.\]; got 'hi'"),
    "a number": ({"instances": 1.5}, BadRequest, "got 1.5"),
    "an empty text": ({"instances": ["hi", ""]}, EmptyInput, "Row 1"),
    "input": ({"instances": {"y": [[104, 105]]}}, UnknownInput, "'y'"),
    "inputs that do not agree": ({"instances": {"x": [[1], [2]], "y": [[1]]}}, ShapeMismatch, "'x': 2, 'y': 1"),
    "fractions": ({"instances": [[1.5, 2.0]]}, BadRequest, "'x'"),
}


@pytest.fixture
async def here(puppet: Puppet) -> AsyncIterator[Here]:
    async with running(puppet) as here:
        yield here


@pytest.fixture(params=TRANSPORTS)
async def client(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[AsyncClient]:
    async with client_of(here, request.param) as client:
        yield client


# All at once.


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_sequences_are_the_gateways_own(here: Here, client: AsyncClient, name: str) -> None:
    given = {key: written(value) for key, value in ANSWERS[name].items()}
    told = (await generate(here, ["hello", "a", "ox"], **given)).json()["results"]
    found = await client.generate("speller", ["hello", "a", "ox"], **ANSWERS[name])
    assert [[written(each) for each in row] for row in found] == [
        [{"tokens": ()} | each for each in (row if isinstance(row, list) else [row])] for row in told
    ]


@pytest.mark.parametrize(
    "instances",
    [[b"hi", "ox"], {"x": [[104, 105], [111, 120]]}, np.array([[104, 105], [111, 120]]), np.array(["hi", "ox"])],
    ids=["text and bytes", "a named list", "an array", "an array of text"],
)
async def test_instances_are_text_or_rows_by_name_or_bare(client: AsyncClient, instances: Any) -> None:
    found = await client.generate("speller", instances, version="1")
    assert [row[0].text for row in found] == ["hi", "ox"]


async def test_rows_of_different_lengths_go_over_HTTP_and_padded_over_gRPC(here: Here) -> None:
    rows = [[104, 105], [97]]
    async with client_of(here, "http") as client:
        assert [row[0].text for row in await client.generate("speller", rows)] == ["hi", "a"]
    async with client_of(here, "grpc") as client:
        padded = {"x": np.array([[104, 105], [97, 0]], np.int32), "lengths": np.array([2, 1], np.int32)}
        assert [row[0].text for row in await client.generate("speller", padded)] == ["hi", "a"]
        with pytest.raises(ShapeMismatch, match=r"Pad them .* http://"):
            await client.generate("speller", rows)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tokens_without_texts_come_as_numbers(
    puppet: Puppet, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = SPELLER | {"generation": SPELLER["generation"] | {"tokens": [""] * len(ALPHABET)}}
    monkeypatch.setitem(SIGNATURES["speller"], "contract", written_contract(mute))
    async with running(puppet) as here, client_of(here, transport) as client:
        hi = Generated(**said("hi") | {"text": "", "tokens": (8, 9)})
        assert await client.generate("speller", ["hi"]) == [[hi]]
        events = await events_of(client, "speller", ["hi"])
        assert events == [Token(0, 0, 8, ""), Token(0, 1, 9, ""), Ended(0, [hi], None)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_sequences_of_equal_text_come_with_the_tokens_that_tell_them_apart(
    puppet: Puppet, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text if text in "hi" else "" for text in ALPHABET]
    curt = SPELLER | {"generation": SPELLER["generation"] | {"tokens": texts}}
    monkeypatch.setitem(SIGNATURES["speller"], "contract", written_contract(curt))
    async with running(puppet) as here, client_of(here, transport) as client:
        [found] = await client.generate("speller", ["hi"], beam=Beam(6, n_best=6))
        alike = [each for each in found if [other.text for other in found].count(each.text) > 1]
        assert len({each.tokens for each in alike}) == len(alike) > 1
        assert all("".join(texts[token] for token in each.tokens) == each.text for each in alike)
        assert not any(each.tokens for each in found if each not in alike)


@pytest.mark.parametrize("name", FLAWS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_what_is_wrong_with_a_call_is_told(client: AsyncClient, name: str, streamed: bool) -> None:
    given, kind, sentence = FLAWS[name]
    asked = {"model": "speller", "instances": ["hi"]} | given
    with pytest.raises(kind, match=sentence):
        await (events_of(client, **asked) if streamed else client.generate(**asked))
    assert (await client.generate("speller", ["hi"]))[0][0].text == "hi"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_model_server_that_dies_in_the_middle_is_asked_again(here: Here, time: Time, transport: str) -> None:
    faults = [None, grpc.StatusCode.UNAVAILABLE]

    async def before(_: Any) -> grpc.StatusCode | None:
        return faults.pop(0) if faults else None

    here.puppet.before = before
    async with client_of(here, transport, time) as client:
        assert await client.generate("speller", ["hi"]) == [[sequence("hi")]]
    assert time.slept == [1]


# A stream.


async def test_tokens_come_in_order_and_then_the_whole(client: AsyncClient) -> None:
    found = await events_of(client, "speller", ["hi", "a"])
    assert [each for each in found if each.index == 0] == [
        Token(0, 0, 8, "h"),
        Token(0, 1, 9, "i"),
        Ended(0, [sequence("hi")], None),
    ]
    assert [each for each in found if each.index == 1] == [Token(1, 0, 1, "a"), Ended(1, [sequence("a")], None)]


async def test_a_beam_gives_all_sequences_at_the_end(client: AsyncClient) -> None:
    beam = Beam(3, n_best=3)
    [ended] = await events_of(client, "speller", ["hi"], beam=beam)
    assert isinstance(ended, Ended)
    assert [ended.sequences] == await client.generate("speller", ["hi"], beam=beam)


async def test_a_token_comes_while_the_rest_is_still_to_come(here: Here, client: AsyncClient) -> None:
    seen, opened = 0, asyncio.Event()

    async def before(_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > 2:  # the encoder's batch and the decoder's first one
            await opened.wait()

    here.puppet.before = before
    events = client.generate_stream("speller", ["hi"])
    assert await anext(events) == Token(0, 0, 8, "h")
    opened.set()
    assert [type(each) async for each in events] == [Token, Ended]


async def test_a_stream_that_is_left_frees_what_still_runs(here: Here, client: AsyncClient) -> None:
    opened = asyncio.Event()

    async def before(request: Any) -> None:
        if request.model_spec.signature_name == "decode" and len(here.puppet.batches) > 2:
            await opened.wait()

    here.puppet.before = before
    async with aclosing(client.generate_stream("speller", ["hello"])) as events:
        assert await anext(events) == Token(0, 0, 8, "h")
    opened.set()
    left = 'sluice_generations_total{model="speller",outcome="client_gone",version="1"}'
    await eventually(lambda: told(here, left))
    await eventually(here.nothing_left)


async def told(here: Here, sample: str) -> bool:
    return (await here.metrics()).get(sample) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_instance_that_fails_ends_with_its_error_and_nothing_is_repeated(
    here: Here, time: Time, transport: str
) -> None:
    dies_at(here.puppet, 2)
    async with client_of(here, transport, time) as client:
        token, ended = await events_of(client, "speller", ["hello"])
    assert token == Token(0, 0, 8, "h")
    assert isinstance(ended, Ended)
    assert (ended.sequences, type(ended.error)) == ([], BackendUnavailable)
    assert time.slept == []


@pytest.mark.parametrize("broken", ["http", "grpc"])
async def test_a_stream_that_breaks_after_its_first_token_says_so_and_is_not_repeated(time: Time, broken: str) -> None:
    async with (
        {"http": broken_http, "grpc": broken_grpc}[broken](tokens=1) as url,
        AsyncClient(url, sleep=time.sleep, clock=time.clock) as client,
    ):
        events = client.generate_stream("speller", ["hi"])
        assert await anext(events) == Token(0, 0, 8, "h")
        with pytest.raises(NoAnswer):
            await anext(events)
    assert time.slept == []


@pytest.mark.parametrize("broken", ["http", "grpc"])
async def test_a_stream_that_breaks_before_anything_has_come_is_asked_for_again(time: Time, broken: str) -> None:
    async with (
        {"http": broken_http, "grpc": broken_grpc}[broken](tokens=0) as url,
        AsyncClient(url, attempts=3, sleep=time.sleep, clock=time.clock) as client,
    ):
        with pytest.raises(NoAnswer):
            await anext(client.generate_stream("speller", ["hi"]))
    assert len(time.slept) == 2


@asynccontextmanager
async def broken_http(tokens: int) -> AsyncIterator[str]:
    """Answers so many tokens and closes the connection in an orderly way, as a proxy may."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        token = b'event: token\ndata: {"index":0,"step":0,"token":8,"text":"h"}\n\n'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + token * tokens
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def broken_grpc(tokens: int) -> AsyncIterator[str]:
    """Answers so many tokens and breaks off."""

    async def answer(_: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(tokens):
            yield pb.GenerateEvent(token=pb.Token(index=0, step=0, token=8, text="h")).SerializeToString()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    handlers = {"Generate": grpc.unary_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("sluice.v1.Generation", handlers),))
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_programs_without_an_event_loop_get_the_same(urls: Urls) -> None:
    for url in urls:
        with Client(url) as client:
            assert client.generate("speller", ["ox"], max_steps=3, timeout_s=5) == [[sequence("ox")]]
            found = list(client.generate_stream("speller", ["ox"]))
            assert found == [Token(0, 0, 15, "o"), Token(0, 1, 24, "x"), Ended(0, [sequence("ox")], None)]
            left = client.generate_stream("speller", ["hello"])
            assert next(left) == Token(0, 0, 8, "h")
            with pytest.raises(SluiceError, match="nosuch"):
                next(client.generate_stream("nosuch", ["ox"]))


def test_events_are_read_however_their_bytes_are_cut() -> None:
    text = (
        'event: token\ndata: {"text":"\u2028\x85"}\n\n: nothing\n\nevent:done\r\ndata:{}\r\n\r\nevent: cut\ndata: {}\n'
    )
    expected = [("token", ' {"text":"\u2028\x85"}'.encode()), ("done", b"{}")]
    for size in (1, 2, 7, 1000):
        reader, body = EventReader(), text.encode()
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        assert [event for chunk in chunks for event in reader.feed(chunk)] == expected


async def events_of(client: AsyncClient, *args: Any, **options: Any) -> list[Token | Ended]:
    return [event async for event in client.generate_stream(*args, **options)]


def sequence(text: str) -> Generated:
    return Generated(tokens=(), **said(text))


def written(value: Any) -> Any:
    """As JSON writes it, but for tuples."""
    slots = getattr(type(value), "__slots__", None)
    return value if slots is None else {name: getattr(value, name) for name in slots}
