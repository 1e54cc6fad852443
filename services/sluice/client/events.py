"""Server-sent events out of the bytes of an answer. It does not know HTTP, or what the events mean."""

from collections.abc import Iterator


class EventReader:
    """Takes the bytes of an answer as they come, cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """The events that are whole by now: the name, and its data."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")  # no other end: text may hold what else ends lines
        for line in lines:
            field, _, value = line.removesuffix(b"\r").partition(b":")
            if field == b"event":
                self._name = value.strip().decode()
            elif field == b"data":
                self._data.append(value)
            elif line in (b"", b"\r") and self._data:
                yield self._name, b"\n".join(self._data)
                self._name, self._data = "", []
