"""A gateway's URL, and the transport that it asks for."""

import re
from collections.abc import Mapping
from contextlib import suppress

import httpx

from sluice.client.grpc import GrpcTransport
from sluice.client.http import HttpTransport
from sluice.client.transport import Transport

_PORT = re.compile(r":(\d+)$", re.ASCII)
_MOST = 65535


def transport_to(url: str, headers: Mapping[str, str]) -> Transport:
    """The transport that a URL asks for.

    Raises:
        ValueError: another kind of URL.
    """
    check_url(url)
    url = url.rstrip("/")
    scheme, _, address = url.partition("://")
    return GrpcTransport(address, headers) if scheme == "grpc" else HttpTransport(url, headers)


def check_url(url: object) -> None:
    """Raises: ValueError: it is no gateway's URL."""
    scheme, _, address = url.rstrip("/").partition("://") if isinstance(url, str) else ("", "", "")
    host, _, path = address.partition("/")
    if path.partition("/")[0] in ("v1", "v2"):
        raise ValueError(f"A gateway's URL ends after the port, as in {scheme}://{host}; got {url!r}.")
    port = _PORT.search(host)
    if port and not 1 <= int(port[1]) <= _MOST:
        raise ValueError(f"A port is 1 to {_MOST}; got {port[1]} in {url!r}.")
    if scheme == "grpc" and host and not path:
        if port:
            return
        raise ValueError(f"A grpc:// URL names its port, as in grpc://127.0.0.1:8081; got {url!r}.")
    if scheme in ("http", "https") and address:
        with suppress(httpx.InvalidURL):
            httpx.URL(f"{scheme}://{address}")
            return
    raise ValueError(f"A gateway's URL is http://HOST:PORT, https://HOST:PORT or grpc://HOST:PORT; got {url!r}.")
