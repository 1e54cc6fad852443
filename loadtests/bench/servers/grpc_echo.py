"""A server that only echoes, on gRPC's own asyncio server: what gRPC alone costs in Python.

`python -m loadtests.bench.servers.grpc_echo HOST:PORT` answers every call with the bytes that came, and reads nothing
in them.
"""

import asyncio
import sys

import grpc
import grpc.aio
import uvloop

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Every method of every service."""

    def service(self, _: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(_echo)


async def _echo(message: bytes, _: object) -> bytes:
    return message


async def serve(address: str) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers([Echo()])
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
