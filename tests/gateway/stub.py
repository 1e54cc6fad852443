"""A client of `sluice.v1.Sessions` made of gRPC's own, for tests."""

import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np

from sluice.wire.arrays import read_array, write_array
from sluice.wire.messages.v1 import sessions_pb2 as pb
from tests.gateway.here import PATIENCE_S, Here

SERVICE = pb.DESCRIPTOR.services_by_name["Sessions"]


def tensor(values: Any, dtype: Any = np.float32) -> pb.Tensor:
    message = pb.Tensor()
    write_array(message, np.array(values, dtype))
    return message


def many(ids: list[str], xs: Any, **more: Any) -> pb.StepManyRequest:
    return pb.StepManyRequest(**{"model": "sum", "sessions": ids, "inputs": {"x": tensor(xs)}, **more})


def lists(outputs: Mapping[str, pb.Tensor]) -> dict[str, Any]:
    return {name: read_array(message).tolist() for name, message in outputs.items()}


class Stub:
    """`await stub.Step(session=…, inputs={"x": tensor(…)})`: each method takes its request's fields."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def __getattr__(self, name: str) -> Any:
        method = SERVICE.methods_by_name[name]
        request, reply = getattr(pb, method.input_type.name), getattr(pb, method.output_type.name)
        path = f"/{SERVICE.full_name}/{name}"
        if name == "Stream":
            return self.channel.stream_stream(path, request.SerializeToString, reply.FromString)
        call = self.channel.unary_unary(path, request.SerializeToString, reply.FromString)
        return lambda timeout=PATIENCE_S, metadata=None, **fields: call(
            request(**fields), timeout=timeout, metadata=metadata
        )

    async def step(self, id: str, x: Any, **more: Any) -> dict[str, Any]:
        """One step, its answer as HTTP writes it."""
        reply = await self.Step(session=id, inputs={"x": tensor(x)}, **more)
        return {"outputs": lists(reply.outputs), "step": reply.step}


@asynccontextmanager
async def dialled(here: Here) -> AsyncIterator[Stub]:
    """A stub with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}", options=options) as channel:
        yield Stub(channel)


async def failed(call: Awaitable[Any], status: str, code: str) -> dict[str, Any]:
    """The facts of an error, which must be whole: status, a sentence, code and the rest in trailing metadata."""
    try:
        reply = await call
    except grpc.aio.AioRpcError as error:
        metadata = dict(error.trailing_metadata() or ())
        assert (error.code().name, metadata.get("sluice-code")) == (status, code), error
        assert len(error.details() or "") > 10
        assert ("retry-after" in metadata) == (status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"))
        facts: dict[str, Any] = json.loads(metadata.get("sluice-details", "{}"))
        return {"error": error.details(), **facts}
    raise AssertionError(f"expected {code}, got {reply}")
