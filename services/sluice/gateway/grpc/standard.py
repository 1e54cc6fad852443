"""The services that gRPC's tools expect of every server: health and reflection.

Reflection's version v1 has the same messages as v1alpha, under another name.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sluice.gateway.grpc.call import STOPPED, Call, Methods
from sluice.gateway.grpc.handlers import Unary, awaited
from sluice.gateway.grpc.http2 import STREAM_WINDOW
from sluice.wire.grpc_frames import CallFailed
from sluice.wire.official import official_pool

HEALTH = health.SERVICE_NAME
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_POLL_S = 0.1  # how often readiness is looked at for those who watch it

_Status = health_pb2.HealthCheckResponse


class Health:
    """`grpc.health.v1.Health` of `services` and of the server as a whole (""): all are `ready` together."""

    def __init__(self, services: Sequence[str], ready: Callable[[], bool]) -> None:
        self._services = {"", *services}
        self._ready = ready
        self._watches: set[_Watch] = set()

    def methods(self) -> Methods:
        return {
            f"/{HEALTH}/Check".encode(): partial(Unary, awaited(self._check)),
            f"/{HEALTH}/Watch".encode(): partial(_Watch, self),
        }

    async def watch_readiness(self) -> None:
        """Tell those who watch when readiness changes."""
        while True:
            for watch in self._watches:
                watch.look()
            await asyncio.sleep(_POLL_S)

    def status(self, service: str) -> Any:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._ready() else _Status.NOT_SERVING

    def stop(self) -> None:
        """End the calls of those who watch."""
        for watch in list(self._watches):
            watch.stop()

    def add(self, watch: "_Watch") -> None:
        self._watches.add(watch)

    def discard(self, watch: "_Watch") -> None:
        self._watches.discard(watch)

    async def _check(self, message: bytes, _: Call) -> bytes:
        service = _read(health_pb2.HealthCheckRequest, message).service
        status = self.status(service)
        if status == _Status.SERVICE_UNKNOWN:
            raise CallFailed("NOT_FOUND", f"There is no service {service!r:.200}.")
        return bytes(_Status(status=status).SerializeToString())


class _Watch:
    """A call that gets a message with each change of a service's status."""

    __slots__ = ("_call", "_health", "_service", "_told")

    full = False

    def __init__(self, health: Health, call: Call) -> None:
        self._health = health
        self._call = call
        self._service: str | None = None
        self._told: int | None = None

    def receive(self, message: bytes) -> None:
        if self._service is not None:
            raise CallFailed("INTERNAL", "This method takes one message; more than one came.")
        self._service = _read(health_pb2.HealthCheckRequest, message).service
        self._health.add(self)
        self.look()

    def end(self) -> None:
        if self._service is None:
            raise CallFailed("INTERNAL", "This method takes one message; none came.")

    def leave(self) -> None:
        self._health.discard(self)

    def stop(self) -> None:
        self._call.fail(STOPPED)

    def look(self) -> None:
        """Tell the status if it is another one than before, once the client has read what it was told."""
        status = self._health.status(self._service or "")
        if status != self._told and not self._call.unsent:
            self._told = status
            self._call.send(_Status(status=status).SerializeToString())


class _Reflection:
    """A call that asks about services and their messages, and gets each answer at once."""

    __slots__ = ("_call", "_servicer")

    def __init__(self, servicer: Any, call: Call) -> None:
        self._servicer = servicer
        self._call = call

    @property
    def full(self) -> bool:
        return self._call.unsent_bytes >= STREAM_WINDOW

    def receive(self, message: bytes) -> None:
        asked = _read(reflection_pb2.ServerReflectionRequest, message)
        for answer in self._servicer.ServerReflectionInfo(iter([asked]), None):
            self._call.send(answer.SerializeToString())

    def end(self) -> None:
        self._call.finish()

    def leave(self) -> None: ...


def reflection_methods(services: Mapping[str, FileDescriptor]) -> Methods:
    """Reflection about these services, by name and with the file of each, and itself, under both of its names."""
    told = {**services, HEALTH: health_pb2.DESCRIPTOR, reflection.SERVICE_NAME: reflection_pb2.DESCRIPTOR}
    servicer = reflection.ReflectionServicer(tuple(told), official_pool(told.values()))
    names = (reflection.SERVICE_NAME, _REFLECTION_V1)
    return {f"/{name}/ServerReflectionInfo".encode(): partial(_Reflection, servicer) for name in names}


def _read(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise CallFailed("INVALID_ARGUMENT", f"The message cannot be read as a {kind.DESCRIPTOR.full_name}.") from None
