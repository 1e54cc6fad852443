"""The gRPC port: all services behind it, open until it is told to stop."""

import asyncio
from collections.abc import Collection

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.oip import Inference
from sluice.gateway.grpc import generation, oip, recognition, sessions, tf_serving
from sluice.gateway.grpc.connection import GrpcProtocol
from sluice.gateway.grpc.door import Door
from sluice.gateway.grpc.standard import Health, reflection_methods
from sluice.gateway.metrics.metrics import Metrics
from sluice.listener import BACKLOG, listen
from sluice.wire.messages.oip.v1 import inference_pb2
from sluice.wire.messages.tfs.v1 import serving_pb2
from sluice.wire.messages.v1 import generation_pb2, recognition_pb2, sessions_pb2

# What health and reflection tell about: a service's name on the wire, and the file that defines it.
_SERVICES = {
    sessions.SERVICE: sessions_pb2.DESCRIPTOR,
    generation.SERVICE: generation_pb2.DESCRIPTOR,
    recognition.SERVICE: recognition_pb2.DESCRIPTOR,
    tf_serving.PREDICTION_SERVICE: serving_pb2.DESCRIPTOR,
    tf_serving.MODEL_SERVICE: serving_pb2.DESCRIPTOR,
    oip.SERVICE: inference_pb2.DESCRIPTOR,
}
_LAST_ANSWERS_S = 2.0  # for calls that the engine does not run
_LAST_WORDS_S = 0.5  # for clients to read how their calls ended


class GrpcServer:
    """The gRPC port, while it is open.

    Raises:
        CannotListen: the address cannot be had.
    """

    def __init__(self, gateway: Gateway, metrics: Metrics, inference: Inference, address: str) -> None:
        self._gateway = gateway
        self._listener = listen(address, "--grpc")
        self._health = Health(tuple(_SERVICES), lambda: gateway.ready)
        door = Door(gateway, metrics)
        self._methods = {
            **sessions.Sessions(door).methods(),
            **generation.Generation(door).methods(),
            **recognition.Recognition(door).methods(),
            **tf_serving.TfServing(door).methods(),
            **oip.Oip(door, inference).methods(),
            **self._health.methods(),
            **reflection_methods(_SERVICES),
        }
        self._open: set[GrpcProtocol] = set()
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        loop, limit = asyncio.get_running_loop(), self._gateway.settings.body_bytes
        self._server = await loop.create_server(
            lambda: GrpcProtocol(self._methods, limit, self._open), sock=self._listener, backlog=BACKLOG
        )
        self._watching = asyncio.create_task(self._health.watch_readiness())

    def drain(self) -> None:
        """Ask all clients to make their next calls elsewhere."""
        for connection in self._open:
            connection.drain()

    def cut(self) -> None:
        """Cut off all connections, whatever runs on them."""
        for connection in list(self._open):
            connection.abort()

    async def stop(self) -> None:
        """Streams that are open are cut; what was still to be answered by the engine has been, as it drains before."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            self._server.close()
        self._listener.close()
        self._health.stop()
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Calls that run may end, and clients go; what is left is cut off."""
        for connection in list(self._open):
            connection.stop(cut=False)
        await _lost([connection for connection in self._open if connection.busy], _LAST_ANSWERS_S)
        for connection in list(self._open):
            connection.stop(cut=True)
        await _lost(self._open, _LAST_WORDS_S)
        self.cut()
        await _lost(self._open, _LAST_WORDS_S)


async def _lost(connections: Collection[GrpcProtocol], limit_s: float) -> None:
    if connections:
        await asyncio.wait([connection.lost for connection in connections], timeout=limit_s)
