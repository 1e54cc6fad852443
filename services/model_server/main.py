"""The model server as a process: load, listen, watch the folders, stop when told to."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
import uvicorn
from pydantic import ValidationError

from services.model_server.settings import ModelServerSettings, load

log = structlog.get_logger()

_GRACE_S = 5.0


def main(args: Sequence[str]) -> int:
    """Run with these flags until told to stop; the exit code."""
    try:
        settings = load(args)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'flags'}: {each['msg']}" for each in error.errors())
        print(f"sluice model-server: {reasons}", file=sys.stderr)  # noqa: T201 - wrong usage
        return 2
    return run(settings)


def run(settings: ModelServerSettings) -> int:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of the parent; 1 if an address cannot be had."""
    stopping = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        # A child outlives signals that reach all processes at once: its parent may still need it to finish.
        signal.signal(each, signal.SIG_IGN if settings.stop_with_parent else lambda *_: stopping.set())
    if settings.stop_with_parent:
        threading.Thread(target=_stop_at_end_of_input, args=(stopping,), daemon=True).start()
    try:
        _check_ports(settings)  # TensorFlow takes seconds to import: say at once that it would be in vain
    except OSError as error:
        return _cannot_start(error)
    from services.model_server import rpc
    from services.model_server.models import Models
    from services.model_server.servable import Servable, Threads

    threads = Threads(settings.tensorflow_intra_op_parallelism, settings.tensorflow_inter_op_parallelism)
    models = Models(lambda: _folders(settings), lambda path: Servable(path, threads))
    try:
        models.refresh()
        addresses = _grpc_addresses(settings)
        server = rpc.server(models, addresses)
        rest = _start_rest(settings, models)
    except OSError as error:
        return _cannot_start(error)
    server.start()
    log.info("ready", grpc=addresses, rest=settings.rest_api_port or None)
    models.watch(settings.file_system_poll_wait_seconds, stopping)
    log.info("stopping")
    answered = server.stop(_GRACE_S)
    rest.stop()
    answered.wait()
    return 0


def _folders(settings: ModelServerSettings) -> Mapping[str, Path]:
    from services.model_server.models import folders_in

    if settings.model_name is not None and settings.model_base_path is not None:
        return {settings.model_name: settings.model_base_path}
    return folders_in(settings.models or Path())


def _grpc_addresses(settings: ModelServerSettings) -> list[str]:
    addresses = [f"{settings.host}:{settings.port}"] if settings.port else []
    if settings.grpc_socket_path is not None:
        addresses.append(f"unix:{settings.grpc_socket_path}")
    return addresses


def _start_rest(settings: ModelServerSettings, models: "object") -> "_Rest":
    """Raises: OSError: the port cannot be had."""
    from services.model_server.rest import application

    config = uvicorn.Config(
        application(models),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_GRACE_S),
    )
    sockets = [_bound(settings.host, settings.rest_api_port)] if settings.rest_api_port else []
    return _Rest(config, sockets)


def _check_ports(settings: ModelServerSettings) -> None:
    for port in filter(None, (settings.port, settings.rest_api_port)):
        _bound(settings.host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return made


def _cannot_start(error: OSError) -> int:
    log.error("cannot start", reason=str(error))
    return 1


class _Rest:
    """REST beside the main thread; without `sockets` there is none."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self._server = uvicorn.Server(config)  # hears no signals outside of the main thread
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="rest", daemon=True)
        if sockets:
            self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and wait for those that run."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()


def _stop_at_end_of_input(stopping: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopping.set()
