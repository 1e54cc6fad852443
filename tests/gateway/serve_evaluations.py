"""A child in the evaluator's place: answers each connection on a Unix socket with its arguments, as JSON.

It ends when its standard input does, or at once with a sentence if a file says one.
"""

import json
import socket
import sys
import threading
from pathlib import Path

SAYS = "says"  # a file beside the first argument, a folder


def main(folder: Path, path: str, *arguments: str) -> None:
    said = folder / SAYS
    if said.exists():
        sys.exit(said.read_text())
    threading.Thread(target=_serve, args=(path, arguments), daemon=True).start()
    sys.stdin.read()


def _serve(path: str, arguments: tuple[str, ...]) -> None:
    body = json.dumps(arguments).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(65536):  # else it was only looked whether somebody listens
                    connection.sendall(head + body)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
