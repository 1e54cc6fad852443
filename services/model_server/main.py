"""The model server as a process: load, listen, watch the folders, stop when told to."""

import os
import signal
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
        signal.signal(each, lambda *_: stopping.set())
    if settings.stop_with_parent:
        threading.Thread(target=_stop_at_end_of_input, args=(stopping,), daemon=True).start()
    from services.model_server import rpc
    from services.model_server.models import Models
    from services.model_server.servable import Servable, Threads

    threads = Threads(settings.tensorflow_intra_op_parallelism, settings.tensorflow_inter_op_parallelism)
    models = Models(lambda: _folders(settings), lambda path: Servable(path, threads))
    models.refresh()
    try:
        addresses = _grpc_addresses(settings)
        server = rpc.server(models, addresses)
    except OSError as error:
        log.error("cannot listen", reason=str(error))  # noqa: TRY400
        return 1
    server.start()
    rest = _start_rest(settings, models)
    log.info("ready", grpc=addresses, rest=settings.rest_api_port or None)
    models.watch(settings.file_system_poll_wait_seconds, stopping)
    log.info("stopping")
    if rest is not None:
        rest.should_exit = True
    server.stop(_GRACE_S).wait()
    return 0


def _folders(settings: ModelServerSettings) -> Mapping[str, Path]:
    from services.model_server.models import folders_in

    if settings.model_name is not None and settings.model_base_path is not None:
        return {settings.model_name: settings.model_base_path}
    return folders_in(settings.models or Path())


def _grpc_addresses(settings: ModelServerSettings) -> list[str]:
    addresses = [f"{settings.host}:{settings.port}"] if settings.port else []
    if settings.grpc_socket_path is not None:
        settings.grpc_socket_path.unlink(missing_ok=True)  # left by a server that was killed
        addresses.append(f"unix:{settings.grpc_socket_path}")
    return addresses


def _start_rest(settings: ModelServerSettings, models: "object") -> uvicorn.Server | None:
    if not settings.rest_api_port:
        return None
    from services.model_server.rest import application

    config = uvicorn.Config(
        application(models),  # type: ignore[arg-type]
        host=settings.host,
        port=settings.rest_api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_GRACE_S),
    )
    server = _Rest(config)
    threading.Thread(target=server.run, name="rest", daemon=True).start()
    return server


class _Rest(uvicorn.Server):
    """Runs beside the main thread, which alone hears signals."""

    def install_signal_handlers(self) -> None:
        pass


def _stop_at_end_of_input(stopping: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopping.set()
