"""Where the model server listens: ports that can be had, and REST beside the main thread."""

import errno
import re
import socket
import sys
import threading
from http import HTTPStatus

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def check_ports(host: str, **ports: int) -> None:
    """Whether ports can be had, by their flags; 0 is none.

    Raises:
        OSError: one cannot; names its flag.
    """
    for flag, port in ports.items():
        if port:
            _bound(host, port, flag).close()


def _bound(host: str, port: int, flag: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(f"--{flag} {port}: cannot listen on {host}:{port}: {_reason(error, flag)}") from None
    return made


def _reason(error: OSError, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"it is in use by another program. End that one, or choose another port with --{flag}"
    if error.errno == errno.EACCES:
        return f"it is for privileged programs. Choose one from 1024 on with --{flag}"
    return f"{error.strerror}. Give an address of this machine with --host"


def error_page(status: int) -> bytes:
    """The HTML that TensorFlow Serving's HTTP server answers by itself."""
    phrase = HTTPStatus(status).phrase
    head, text = f"<TITLE>{status} {phrase}</TITLE>", f"<H1>{phrase}</H1>"
    return f"<HTML><HEAD>\n{head}\n</HEAD><BODY>\n{text}\n</BODY></HTML>\n".encode()


class _Connection(HttpToolsProtocol):
    """A connection as of uvicorn, but for what TensorFlow Serving's HTTP server does otherwise."""

    def data_received(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("of another version of HTTP")
        self.scope["state"]["target"] = self.url  # with a question mark that nothing follows
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            self.url = b"/"
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; a method that nobody knows is not implemented, as CONNECT is not."""
        no_method = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
        no_method |= self._data.startswith(b"CONNECT ")
        status = 501 if no_method and _REQUEST_LINE.match(self._data) else 400
        page = error_page(status)
        self.transport.write(
            b"HTTP/1.1 %d \r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, len(page), page)
        )
        self.transport.close()


_VERSIONS = ("1.0", "1.1")
_REQUEST_LINE = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/")


class Rest:
    """An application at a port, in a thread of its own; port 0: nowhere.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, application: ASGIApp, host: str, port: int, grace_s: float) -> None:
        config = uvicorn.Config(
            application,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace_s),
        )
        self._server = uvicorn.Server(config)  # hears no signals outside of the main thread
        sockets = [_bound(host, port, "rest_api_port")] if port else []
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
