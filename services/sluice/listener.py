"""Addresses to listen on, and why one cannot be had."""

import errno
import socket
import stat
from pathlib import Path

BACKLOG = 2048
UNIX = "unix:"
_OWNER_ONLY = 0o600
_LAST_PORT = 65535


class CannotListen(OSError):
    """An address cannot be had; the sentence names its flag and says what to do."""


def check_address(text: str, *, least: int = 0, unix: bool = False) -> str:
    """An address as it was given: HOST:PORT, with a port from `least` on, or with `unix` also unix:PATH.

    Raises:
        ValueError: it is none; says what was expected, and what came.
    """
    if unix and text.startswith(UNIX) and len(text) > len(UNIX):
        return text
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()):
        form = f"or {UNIX}PATH" if unix else "such as 127.0.0.1:8080"
        raise ValueError(f"expected HOST:PORT{'' if unix else ','} {form}, got {text!r:.200}")
    if not least <= int(port) <= _LAST_PORT:
        raise ValueError(f"expected a port from {least} to {_LAST_PORT}, got {text!r:.200}")
    return text


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


def listen_at(path: Path, flag: str) -> socket.socket:
    """A Unix socket at a path, for this user alone, in place of one that a killed process left behind.

    Raises:
        CannotListen: something else is there, another process listens on it, or it cannot be made.
    """
    where = f"{flag} {UNIX}{path}"
    if path.exists():
        _remove_left_behind(path, where)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        path.chmod(_OWNER_ONLY)
        made.listen(BACKLOG)
    except OSError as error:  # among them: too long for the address of a socket
        made.close()
        raise CannotListen(f"{where}: {error.strerror or error}. Give a short path in a folder that is there") from None
    return made


def _remove_left_behind(path: Path, where: str) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise CannotListen(f"{where}: there is a file that is no socket. Move it, or choose another path")
    with socket.socket(socket.AF_UNIX) as asking:
        if asking.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise CannotListen(f"{where}: another program listens there. End that one, or choose another path")
    path.unlink()


def _reason(error: OSError, flag: str, host: str, port: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the address is in use by another program. End that one, or choose another port: {flag} {host}:PORT"
    if error.errno == errno.EACCES:
        return f"this port is for privileged programs. Choose one from 1024 on: {flag} {host}:PORT"
    said = (error.strerror or str(error)).partition(" (")[0]  # without Python's words on what it was doing
    return f"{said}. Give an address of this machine, such as {flag} 127.0.0.1:{port}"
