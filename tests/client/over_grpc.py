"""`Sums` as the gRPC services `sluice.v1.Sessions` and `tensorflow.serving.PredictionService`."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np

from sluice.client.tensors import read_tensors, write_tensors
from sluice.policy.errors import SluiceError
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.predict_frames import read_request, write_response
from tests.client.sums import Cut, Sums


@contextlib.asynccontextmanager
async def served(sums: Sums) -> AsyncIterator[tuple[str, list[int]]]:
    """Its URL, and how many requests came on each stream that was opened."""
    service = Service(sums)
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    server.add_generic_rpc_handlers((service.handlers(), service.prediction_handlers()))
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", service.streams
    finally:
        await server.stop(None)


class Service:
    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self.streams: list[int] = []

    def handlers(self) -> grpc.GenericRpcHandler:
        unary = {
            "Get": (self._get, pb.GetRequest),
            "Step": (self._step, pb.StepRequest),
            "Close": (self._close, pb.CloseRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(call, request.FromString, lambda reply: reply.SerializeToString())
            for name, (call, request) in unary.items()
        }
        handlers["Stream"] = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.StepManyRequest.FromString, lambda reply: reply.SerializeToString()
        )
        return grpc.method_handlers_generic_handler("sluice.v1.Sessions", handlers)

    def prediction_handlers(self) -> grpc.GenericRpcHandler:
        handlers = {
            "Predict": grpc.unary_unary_rpc_method_handler(self._predict),
            "GetModelMetadata": grpc.unary_unary_rpc_method_handler(self._metadata),
        }
        return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)

    async def _metadata(self, _: bytes, __: Any) -> bytes:
        return self._sums.metadata().SerializeToString()

    async def _predict(self, message: bytes, context: Any) -> bytes:
        async with self._faulty(context):
            request = read_request(message)
            return write_response("sum", 1, request.signature, {"y": self._sums.predict(request.inputs["x"])})

    async def _get(self, request: pb.GetRequest, _: Any) -> pb.Session:
        total = self._sums.find(request.session)
        return pb.Session(session=request.session, model="sum", version="1", step=total.step)

    async def _step(self, request: pb.StepRequest, context: Any) -> pb.StepResponse:
        async with self._faulty(context):
            number = request.step if request.HasField("step") else None
            total, step, replayed = self._sums.step(request.session, read_tensors(request.inputs)["x"], number)
            reply = pb.StepResponse(step=step, replayed=replayed)
            write_tensors(reply.outputs, {"total": total})
        return reply

    async def _close(self, request: pb.CloseRequest, context: Any) -> pb.CloseResponse:
        async with self._faulty(context):
            self._sums.close(request.session)
        return pb.CloseResponse()

    @contextlib.asynccontextmanager
    async def _faulty(self, context: Any) -> AsyncIterator[None]:
        """Run the block with the next fault about it."""
        fault = self._sums.fault()
        if fault is Cut.BEFORE:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        try:
            if isinstance(fault, SluiceError):
                raise fault
            yield
        except SluiceError as error:
            told = () if error.retry_after_s is None else (("retry-after", str(error.retry_after_s)),)
            status = grpc.StatusCode[error.grpc_status]
            await context.abort(status, error.message, (("sluice-code", error.code), *told))
        if fault is Cut.AFTER:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")

    async def _stream(self, requests: Any, context: Any) -> AsyncIterator[pb.StepManyResponse]:
        self.streams.append(0)
        async for request in requests:
            self.streams[-1] += 1
            fault = self._sums.fault()
            if fault is Cut.BEFORE:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            reply = self._answer(request, fault)
            if fault is Cut.AFTER:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield reply

    def _answer(self, request: pb.StepManyRequest, fault: Any) -> pb.StepManyResponse:
        if isinstance(fault, SluiceError):
            error = pb.Error(code=fault.code, message=fault.message, retry_after_s=fault.retry_after_s)
            return pb.StepManyResponse(tag=request.tag, error=error)
        (session,), (number,) = request.sessions, request.steps
        reply = pb.StepManyResponse(tag=request.tag)
        try:
            total, step, _ = self._sums.step(session, read_tensors(request.inputs)["x"][0], number)
        except SluiceError as error:
            reply.steps.append(-1)
            reply.errors.add(index=0).error.MergeFrom(pb.Error(code=error.code, message=error.message))
            return reply
        reply.steps.append(step)
        write_tensors(reply.outputs, {"total": total[np.newaxis]})
        return reply
