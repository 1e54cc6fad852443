"""The model server's gRPC port: its calls, and health."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sluice.model_server.calls import Calls
from sluice.model_server.errors import ServingError
from sluice.wire.trace_context import read_trace

log = structlog.get_logger()

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
# Calls at one time. TensorFlow has its own threads below, so that more of them slow each other down; a status call must
# find one free while batches of several models run.
_WORKERS = 8
_SENTENCE_BYTES = 2000  # of an error; written thrice as long at worst, into trailers of which gRPC takes 8 KiB


def server(calls: Calls, addresses: list[str]) -> grpc.Server:
    """A server that is bound to `addresses`, HOST:PORT or unix:PATH, and not started yet.

    Raises:
        OSError: an address cannot be had.
    """
    made = grpc.server(ThreadPoolExecutor(_WORKERS, "predict"), options=_OPTIONS)
    methods = calls.methods()
    made.add_generic_rpc_handlers([_service(name, each) for name, each in methods.items()])
    _add_health(made, methods)
    for address in addresses:
        try:
            made.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
    return made


def _add_health(made: grpc.Server, services: Mapping[str, object]) -> None:
    """Health of the server, "", and of each service by its name and by the short one that TensorFlow Serving has."""
    servicer = health.HealthServicer()
    for name in services:
        for each in (name, name.rpartition(".")[2]):
            servicer.set(each, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)


def _service(name: str, methods: Mapping[str, Callable[[bytes], Any]]) -> "grpc.GenericRpcHandler[Any, Any]":
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(partial(_answer, method, call)) for method, call in methods.items()
    }
    return grpc.method_handlers_generic_handler(name, handlers)


def _trace(context: grpc.ServicerContext) -> dict[str, str]:
    """What a line in the log says of the trace that a call belongs to, if it tells of one."""
    told = context.invocation_metadata()
    trace = read_trace((name.encode(), value.encode()) for name, value in told if isinstance(value, str))
    return {} if trace is None else {"trace_id": trace.id}


def _answer(method: str, call: Callable[[bytes], Any], message: bytes, context: grpc.ServicerContext) -> Any:
    """What a call answers, or its error as a gRPC status."""
    try:
        return call(message).SerializeToString()
    except ServingError as error:
        sentence = error.message.encode(errors="replace")[:_SENTENCE_BYTES].decode(errors="ignore")
        context.abort(grpc.StatusCode[error.status], sentence)
    except Exception:
        log.exception("call failed", method=method, **_trace(context))
        context.abort(grpc.StatusCode.INTERNAL, "something went wrong inside the model server")
