"""Addresses to listen on."""

import socket

BACKLOG = 2048


def listen(address: str) -> socket.socket:
    """A socket that listens on HOST:PORT; port 0 is any free one.

    Raises:
        OSError: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
