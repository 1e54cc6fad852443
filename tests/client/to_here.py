"""A client of a whole gateway that runs in the test's own loop, in front of a puppet model server."""

from sluice.client import AsyncClient
from tests.client.faults import Time
from tests.gateway.here import PATIENCE_S, Here

TRANSPORTS = ("http", "grpc")


def client_of(here: Here, transport: str, time: Time | None = None, timeout_s: float = PATIENCE_S) -> AsyncClient:
    """A client over `http` or `grpc`; it waits between attempts by `time`, where that is given."""
    port = here.port if transport == "http" else here.app.state.grpc.port
    url = f"{transport}://127.0.0.1:{port}"
    if time is None:
        return AsyncClient(url, timeout_s=timeout_s)
    return AsyncClient(url, timeout_s=timeout_s, sleep=time.sleep, clock=time.clock)
