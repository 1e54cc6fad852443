"""Asks a gateway for a command: what it refuses, and that it is not there, ends the command with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from sluice.cli.errors import FAILED, NOT_REACHABLE, WRONG_USAGE, CommandError
from sluice.client import Client, NoAnswer, NotFound, SluiceError
from sluice.client.errors import OtherProtocol
from sluice.client.urls import check_url as check_gateway_url

GATEWAY = "http://127.0.0.1:8080"
_BEHIND_IT_IS_DOWN = (502, 503, 504)


@contextmanager
def asking(url: str, otherwise: str, *, attempts: int = 1, timeout_s: float = 10.0) -> Iterator[Client]:
    """A client of the gateway at `url`, with these options of `Client`.

    Raises:
        CommandError: as `telling`.
    """
    with telling(url, otherwise), Client(url, attempts=attempts, timeout_s=timeout_s) as client:
        yield client


@contextmanager
def telling(url: str, otherwise: str) -> Iterator[None]:
    """Calls of the gateway at `url`.

    Raises:
        CommandError: no gateway is there, which ends the sentence with `otherwise`; or it refuses.
    """
    check_url(url)
    try:
        yield
    except OtherProtocol:
        raise CommandError(
            f"{url}: expected the HTTP port of a gateway; what listens there speaks another protocol, as its gRPC port "
            "does. `sluice serve` prints both when it starts",
            NOT_REACHABLE,
        ) from None
    except NoAnswer as error:
        raise CommandError(
            f"{url}: expected a gateway there. {error} Start one with `sluice serve`, or give another --url. "
            f"{otherwise}",
            NOT_REACHABLE,
        ) from None
    except SluiceError as error:
        hint = " GET /v1/models lists the models that are served." if isinstance(error, NotFound) else ""
        code = NOT_REACHABLE if error.http_status in _BEHIND_IT_IS_DOWN else FAILED
        raise CommandError(f"{url} answered {error.http_status}: {error}{hint}", code) from None


def check_url(url: str) -> None:
    """Raises: CommandError: it is no gateway's URL, or none for HTTP."""
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--url: expected the gateway's HTTP port, http://HOST:PORT, got {url!r}", WRONG_USAGE)
    try:
        check_gateway_url(url)
    except ValueError as error:
        raise CommandError(f"--url: {error}", WRONG_USAGE) from None
