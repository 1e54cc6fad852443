"""Addresses to listen on, and why one cannot be had."""

import errno
import socket

BACKLOG = 2048


class CannotListen(OSError):
    """An address cannot be had; the sentence names its flag and says what to do."""


def listen(address: str, flag: str) -> socket.socket:
    """A socket that listens on HOST:PORT, as `flag` says; port 0 is any free one.

    Raises:
        CannotListen: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(f"{flag} {address}: {_reason(error, flag, host, port)}") from None


def _reason(error: OSError, flag: str, host: str, port: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the address is in use by another program. End that one, or choose another port: {flag} {host}:PORT"
    if error.errno == errno.EACCES:
        return f"this port is for privileged programs. Choose one from 1024 on: {flag} {host}:PORT"
    said = (error.strerror or str(error)).partition(" (")[0]  # without Python's words on what it was doing
    return f"{said}. Give an address of this machine, such as {flag} 127.0.0.1:{port}"
