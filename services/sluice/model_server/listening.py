"""Where the model server listens: ports that can be had, and REST beside the main thread."""

import socket
import threading

import uvicorn
from starlette.types import ASGIApp


def check_ports(host: str, *ports: int) -> None:
    """Raises: OSError: a port cannot be had; 0 is none."""
    for port in filter(None, ports):
        _bound(host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return made


class Rest:
    """An application at a port, in a thread of its own; port 0: nowhere.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, application: ASGIApp, host: str, port: int, grace_s: float) -> None:
        config = uvicorn.Config(
            application,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace_s),
        )
        self._server = uvicorn.Server(config)  # hears no signals outside of the main thread
        sockets = [_bound(host, port)] if port else []
        for each in sockets:
            each.listen(config.backlog)  # who connects before uvicorn has started waits
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="rest", daemon=True)
        if sockets:
            self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and wait for those that run."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
