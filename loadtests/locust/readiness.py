"""Asks a gateway, before the load, whether it is there, and whether it serves what each scenario needs."""

import json
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

GRPC = "grpc"
# By tag of a scenario, the kind of requests as `GET /v1/models` calls it.
_KINDS = {
    "rows": "rows",
    "sessions": "session",
    "sequences": "sequences",
    "recognition": "recognition",
    "generation": "generation",
}
_TIMEOUT_S = 10.0
_open = build_opener(ProxyHandler({})).open  # the load goes through no proxy either


class NotReady(Exception):
    """There is no gateway to send load to; the sentence says what came and what to do."""


class Served:
    """What a gateway serves, at a URL for HTTP and at HOST:PORT for gRPC.

    Raises:
        NotReady: it is not there or not ready.
    """

    def __init__(self, url: str, grpc: str) -> None:
        self._url, self._grpc = url, grpc
        self._kinds = _kinds(url)

    def lack(self, models: Iterable[str], tags: set[str]) -> str:
        """Why a scenario that asks these models, in ways that its tags name, cannot run; empty if it can."""
        if GRPC in tags and not _listens(self._grpc):
            return f"nothing listens for gRPC at {self._grpc} (another address: --grpc HOST:PORT)"
        kinds = {_KINDS[tag] for tag in tags & _KINDS.keys()}
        return next(filter(None, (self._lack(model, kinds) for model in models)), "")

    def _lack(self, model: str, kinds: set[str]) -> str:
        found = self._kinds.get(model)
        if found is None:
            return f"the gateway serves no {model}"
        if missing := kinds - found:
            return f"{model} does not take requests of the kind {', '.join(missing)}, only {', '.join(sorted(found))}"
        if "recognition" in kinds:
            about = _get(self._url, f"/v1/models/{model}/calibration")
            return "" if about["calibration"] else str(about["reason"])
        return ""


def _kinds(url: str) -> Mapping[str, set[str]]:
    if urlsplit(url).scheme != "http" or not urlsplit(url).hostname:
        raise NotReady(f"expected a gateway as http://HOST:PORT; got {url!r}")
    _get(url, "/readyz")
    try:
        return {model["name"]: set(model["kinds"]) for model in _get(url, "/v1/models")["models"]}
    except (KeyError, TypeError):
        raise _other(url) from None


def _get(url: str, path: str) -> Any:
    try:
        with _open(url + path, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise NotReady(f"expected a gateway that is ready at {url}; {_said(error)}") from None
    except (OSError, HTTPException) as error:
        raise NotReady(
            f"expected a gateway at {url}; it cannot be reached: {getattr(error, 'reason', error)}. "
            "Start one (make serve), or name another"
        ) from None
    except ValueError:
        raise _other(url) from None


def _other(url: str) -> NotReady:
    return NotReady(f"expected a gateway at {url}; something else answers there")


def _said(error: HTTPError) -> str:
    with error, suppress(ValueError, KeyError, TypeError):
        return f"it says: {json.load(error)['error']}"
    return f"it answers with status {error.code}"


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S):
        return True
    return False
