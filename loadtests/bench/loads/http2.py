"""As much of HTTP/2 (RFC 9113) and gRPC's framing as a load needs, at a few microseconds a message.

A client library costs more than the gateway does, and would be what the figures show.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_STREAM = 1
_INITIAL_WINDOW = 4
_DEFAULT_WINDOW = 65_535
_MAX_WINDOW = 2**31 - 1  # bytes that may come without our saying more: hours of small messages
_FRAME_LIMIT = 16_384
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class StreamEnded(ConnectionError):
    """The server ended the stream or the connection."""


def message_frames(message: bytes) -> bytes:
    """DATA frames that carry one gRPC message, uncompressed."""
    framed = struct.pack(">BI", 0, len(message)) + message
    parts = (framed[at : at + _FRAME_LIMIT] for at in range(0, len(framed), _FRAME_LIMIT))
    return b"".join(_frame(_DATA, 0, _STREAM, part) for part in parts)


class GrpcStream:
    """One gRPC call on a connection of its own: bytes in, messages out, without I/O. `write` sends bytes."""

    def __init__(self, write: Callable[[bytes], None], path: str) -> None:
        self._write = write
        self._received = bytearray()
        self._data = bytearray()
        self._windows = {0: _DEFAULT_WINDOW, _STREAM: _DEFAULT_WINDOW}
        self._server_window = _DEFAULT_WINDOW
        self._waiting: deque[bytes] = deque()
        settings = _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, _MAX_WINDOW))
        window = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW))
        write(_PREFACE + settings + window + _frame(_HEADERS, _END_HEADERS, _STREAM, _header_block(path)))

    def send(self, messages: list[bytes]) -> None:
        """Send messages, each as `message_frames` made it, as far as the server takes them now."""
        self._waiting.extend(messages)
        self._flush()

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes.

        Raises:
            StreamEnded: there will be no more.
        """
        self._received += data
        for kind, flags, stream, payload in _frames(self._received):
            if kind == _DATA:
                self._data += payload
            else:
                self._control(kind, flags, stream, payload)
        return self._messages()

    def _messages(self) -> list[bytes]:
        at, data, messages = 0, self._data, []
        while len(data) - at >= 5:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5])
            if len(data) < end:
                break
            messages.append(bytes(data[at + 5 : end]))
            at = end
        del data[:at]
        return messages

    def _control(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._apply(payload)
            self._write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload)
            self._flush()
        elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            raise StreamEnded(f"the server ended the stream: {_words(payload)}")

    def _apply(self, settings: bytearray) -> None:
        for name, value in struct.iter_unpack(">HI", settings):
            if name == _INITIAL_WINDOW:
                self._windows[_STREAM] += value - self._server_window
                self._server_window = value

    def _flush(self) -> None:
        room, sent = min(self._windows.values()), []
        while self._waiting and len(self._waiting[0]) <= room:  # frames' heads do not count, but take little room
            sent.append(self._waiting.popleft())
            room -= len(sent[-1])
        if sent:
            for stream in self._windows:
                self._windows[stream] -= sum(map(_payload_bytes, sent))
            self._write(b"".join(sent))


class GrpcCalls:
    """Many calls of one method, one message each way, the same message in all of them. `write` sends bytes.

    Messages are small: servers' windows, which open again long before they are full, are not looked at.
    """

    def __init__(self, write: Callable[[bytes], None], path: str, message: bytes) -> None:
        self._write = write
        self._received = bytearray()
        self._next = _STREAM
        self._calls: dict[int, int] = {}  # stream → tag
        self._answered: set[int] = set()  # streams with a message
        self._block, self._message = _header_block(path), struct.pack(">BI", 0, len(message)) + message
        window = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW))
        write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + window)

    def call(self, tags: list[int]) -> None:
        """Begin a call for each tag."""
        frames = []
        for tag in tags:
            stream, self._next = self._next, self._next + 2
            self._calls[stream] = tag
            frames += (
                _frame(_HEADERS, _END_HEADERS, stream, self._block),
                _frame(_DATA, _END_STREAM, stream, self._message),
            )
        self._write(b"".join(frames))

    def receive(self, data: bytes) -> list[int]:
        """The tags of the calls that are answered with these bytes.

        Raises:
            StreamEnded: a call ended without an answer, or the server closes the connection.
        """
        self._received += data
        tags = []
        for kind, flags, stream, payload in _frames(self._received):
            if kind == _DATA:
                self._answered.add(stream)
            elif kind == _HEADERS and flags & _END_STREAM and stream in self._answered:
                self._answered.remove(stream)
                tags.append(self._calls.pop(stream))
            else:
                self._control(kind, flags, stream, payload)
        return tags

    def _control(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY or (kind == _RST_STREAM and stream in self._calls):
            raise StreamEnded(f"the server ended the calls: {_words(payload)}")
        elif kind == _HEADERS and flags & _END_STREAM:
            raise StreamEnded(f"the server ended a call without an answer: {_words(payload)}")


def _frames(received: bytearray) -> Iterator[tuple[int, int, int, bytearray]]:
    """Type, flags, stream and payload of each complete frame, which are taken out when all are read."""
    at = 0
    while len(received) - at >= 9:
        end = at + 9 + int.from_bytes(received[at : at + 3])
        if len(received) < end:
            break
        yield received[at + 3], received[at + 4], int.from_bytes(received[at + 5 : at + 9]), received[at + 9 : end]
        at = end
    del received[:at]


def _words(payload: bytearray) -> str:
    """What can be read in a frame without unpacking its fields."""
    return " ".join(bytes(byte if 32 <= byte < 127 else 32 for byte in payload).decode().split())


def _payload_bytes(frames: bytes) -> int:
    return len(frames) - 9 * -(-len(frames) // (9 + _FRAME_LIMIT))


def _frame(kind: int, flags: int, stream: int, payload: bytes | bytearray) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _header_block(path: str) -> bytes:
    """Headers as literals that nobody has to remember (RFC 7541, 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def _text(text: str) -> bytes:
    assert len(text) < 127  # one byte says how long it is
    return bytes([len(text)]) + text.encode()
