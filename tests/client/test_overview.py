"""What a gateway says of itself and its models: over HTTP, and over gRPC where there is a call for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sluice.client import AsyncClient, Client, NoAnswer, NotFound, Unavailable
from tests.client.conftest import Urls

LOOKS = ("models", "ready", "metrics", "reload_calibrations")


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[str]:
    """The address of a server that gives every request the same answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_models_and_their_contracts_are_told(urls: Urls) -> None:
    with Client(urls.http) as client:
        models = {model.name: model for model in client.models()}
        assert [(each.version, each.state) for each in models["sum"].versions] == [(1, "AVAILABLE")]
        assert "session" in models["sum"].kinds
        contract = client.contract("sum", 1)
        assert contract is not None
        assert contract.step is not None
        assert list(contract.step.inputs) == ["x"]
        assert client.contract("plain") is None
        with pytest.raises(NotFound):
            client.contract("sum", 7)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_signatures_are_told_over_both_transports(urls: Urls, scheme: str) -> None:
    with Client(getattr(urls, scheme)) as client:
        signatures = client.signatures("plain", version=1)
        assert str(signatures["serving_default"].inputs["x"]).startswith("float32")


def test_a_gateway_is_ready_and_counts(urls: Urls) -> None:
    with Client(urls.http) as client:
        client.ready()
        assert "# TYPE sluice_rows_total counter" in client.metrics()
        assert client.reload_calibrations() == []
        assert client.buckets("plain").signatures == {}


async def test_buckets_are_told_by_signature_and_axis() -> None:
    axis = '{"bounds": [4, 8], "learned": true, "lengths": {"3": 2.5}}'
    told = f'{{"model": "m", "version": "2", "signatures": {{"s": {{"time": {axis}}}}}, "chunks": {{"s": 16}}}}'
    async with answering(200, told) as url, AsyncClient(url) as client:
        buckets = await client.buckets("m")
    assert (buckets.model, buckets.version, buckets.chunks) == ("m", 2, {"s": 16})
    found = buckets.signatures["s"]["time"]
    assert (found.bounds, found.learned, found.lengths) == ((4, 8), True, {3: 2.5})


async def test_a_gateway_that_is_not_ready_says_why() -> None:
    async with (
        answering(503, '{"status": "not ready", "reason": "model a is loading"}') as url,
        AsyncClient(url, attempts=1) as client,
    ):
        with pytest.raises(Unavailable, match="model a is loading"):
            await client.ready()


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"models": 1, "signatures": [], "contract": 1, "files": 2}'])
async def test_what_is_not_a_gateways_answer_is_none(body: str) -> None:
    async with answering(200, body) as url, AsyncClient(url, attempts=1) as client:
        for call in (client.models(), client.buckets("m"), client.signatures("m"), client.reload_calibrations()):
            with pytest.raises(NoAnswer, match="did not answer as a gateway does"):
                await call


@pytest.mark.parametrize("look", LOOKS)
def test_what_grpc_has_no_call_for_is_refused_before_it_is_sent(urls: Urls, look: str) -> None:
    with Client(urls.grpc) as client, pytest.raises(ValueError, match="over HTTP only"):
        getattr(client, look)()


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://", "somewhere"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Client(url)
