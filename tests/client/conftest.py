"""A gateway process with a puppet model server for all tests of the client, over HTTP and gRPC."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import grpc.aio
import pytest

from sluice.client import AsyncClient
from tests.client import over_grpc, over_http
from tests.client.faults import Serve, Time
from tests.client.sums import Sums
from tests.end_to_end.serving import serving
from tests.gateway.puppet import Puppet

# gRPC's asyncio shuts down with its last channel and leaves a socket unclosed, which is a warning: this keeps it up.
grpc.aio.init_grpc_aio()


class Urls(NamedTuple):
    http: str
    grpc: str


@pytest.fixture(scope="session")
def puppet_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("puppet")
    command = [sys.executable, "-m", "tests.gateway.serve_puppet", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


@pytest.fixture(scope="session")
def urls(puppet_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    version = folder / "models" / "sum" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()  # the gateway is ready when the puppet serves what is here
    flags = ("--backend", puppet_address, "--grpc", "127.0.0.1:0")
    with serving(folder / "models", folder, *flags) as gateway:
        found = re.search(r"\bgrpc=(\S+)", gateway.log.read_text(encoding="utf-8"))
        assert found is not None, "the gateway does not say where it listens for gRPC"
        yield Urls(gateway.url, f"grpc://{found[1]}")


@pytest.fixture(params=["http", "grpc"])
async def client(request: pytest.FixtureRequest, urls: Urls) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(getattr(urls, request.param)) as client:
        yield client


@pytest.fixture
async def puppet(tmp_path: Path) -> AsyncIterator[Puppet]:
    puppet = Puppet(tmp_path)
    await puppet.start()
    yield puppet
    await puppet.stop()


@pytest.fixture
def sums() -> Sums:
    return Sums()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=[over_http, over_grpc], ids=["http", "grpc"])
def served(request: pytest.FixtureRequest) -> Serve:
    module: ModuleType = request.param
    return module.served
