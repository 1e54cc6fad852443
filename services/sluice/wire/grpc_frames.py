"""gRPC's own rules on top of HTTP/2: framed messages, timeouts, statuses and metadata in header fields.

It knows bytes and names; not connections, streams or what a message means. The rules are those of gRPC's
PROTOCOL-HTTP2.md and compression.md.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import grpc

from sluice.policy.errors import BadRequest, BodyTooLarge
from sluice.wire.content import inflate

Header = tuple[bytes, bytes]
Metadata = Sequence[tuple[str, str]]

STATUS: Mapping[str, int] = {code.name: code.value[0] for code in grpc.StatusCode}

BAD_REQUEST: Metadata = [("sluice-code", "bad_request")]  # of calls that do not keep to the rules

ENCODINGS: Mapping[bytes, int] = {b"deflate": zlib.MAX_WBITS, b"gzip": 16 + zlib.MAX_WBITS}  # and zlib's formats

_PREFIX_BYTES = 5  # a flag for compression, and the message's length
_WORTH_BYTES = range(1024, 4 * 1024 * 1024 + 1)  # of answers; a longer one would hold the others up
_SAMPLE_BYTES = 4096  # of an answer tell whether it becomes smaller
_SMALLER = 7 / 8
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_NEEDED = {b":method", b":scheme", b":path"}
_PSEUDO = {*_NEEDED, b":authority"}
_FIELD_NAME = re.compile(rb"[!-9;-@[-~]+")
_UNIT_S: Mapping[bytes, float] = {b"H": 3600, b"M": 60, b"S": 1, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_TIMEOUT_S = 365 * 86400.0
_READABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_SENTENCE_LIMIT = 1000  # characters; clients take 8 KiB of trailers


class CallFailed(Exception):
    """How a call ends that is not answered: the name of a gRPC status, a sentence, trailing metadata (ASCII)."""

    def __init__(self, status: str, message: str, metadata: Metadata = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.metadata = metadata


class Inbox:
    """Messages of one direction of a call, from the bytes that carry them.

    Holds at most one incomplete message and what it was fed and not asked for. `encoding` is the call's grpc-encoding.
    """

    __slots__ = ("_bytes_limit", "_data", "encoding")

    def __init__(self, bytes_limit: int) -> None:
        self.encoding = b""
        self._bytes_limit = bytes_limit
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> bytes | None:
        """The next message, inflated and without its prefix; None: it has not come completely.

        Raises:
            CallFailed: RESOURCE_EXHAUSTED: it is larger than allowed. UNIMPLEMENTED, INTERNAL: it cannot be inflated.
        """
        data = self._data
        if len(data) < _PREFIX_BYTES:
            return None
        end = _PREFIX_BYTES + int.from_bytes(data[1:_PREFIX_BYTES])
        compressed = data[0]
        if end > self._bytes_limit + _PREFIX_BYTES:
            raise self._too_large(f"one of {end - _PREFIX_BYTES} bytes came")
        if compressed:
            self._check_encoding(compressed)
        if len(data) < end:
            return None
        with memoryview(data) as view:
            message = bytes(view[_PREFIX_BYTES:end])
        del data[:end]
        return self._inflated(message) if compressed else message

    def clear(self) -> None:
        self._data.clear()

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def empty(self) -> bool:
        return not self._data

    def _too_large(self, came: str) -> CallFailed:
        limit = self._bytes_limit
        sentence = f"A message may have {limit} bytes; {came}. Send it in parts, or raise the gateway's body_bytes."
        return CallFailed("RESOURCE_EXHAUSTED", sentence, [("sluice-code", "body_too_large")])

    def _check_encoding(self, flag: int) -> None:
        if flag > 1 or self.encoding in (b"", b"identity"):
            sentence = "A message says that it is compressed, and the call's grpc-encoding does not say how."
            raise CallFailed("INTERNAL", sentence, BAD_REQUEST)
        if self.encoding not in ENCODINGS:
            got = self.encoding.decode("latin-1")
            raise CallFailed(
                "UNIMPLEMENTED", f"grpc-encoding is identity, deflate or gzip; got {got!r:.80}.", BAD_REQUEST
            )

    def _inflated(self, message: bytes) -> bytes:
        encoding = self.encoding.decode()
        try:
            return inflate(message, encoding, self._bytes_limit) if message else message
        except BodyTooLarge:
            raise self._too_large("one has more when it is inflated") from None
        except BadRequest:
            raise CallFailed("INTERNAL", f"A message is not {encoding}, as grpc-encoding says.", BAD_REQUEST) from None


def framed(message: bytes, encoding: bytes = b"") -> bytes:
    """A message as it goes on the wire; compressed, if it is worth it, where there is an encoding."""
    packed = _deflated(message, encoding) if encoding and len(message) in _WORTH_BYTES else None
    return b"\0" + len(message).to_bytes(4) + message if packed is None else b"\1" + len(packed).to_bytes(4) + packed


def _deflated(message: bytes, encoding: bytes) -> bytes | None:
    """The message in an encoding; None: it hardly becomes smaller, as a sample of its middle says."""
    middle = len(message) // 2
    sample = message[max(middle - _SAMPLE_BYTES // 2, 0) : middle + _SAMPLE_BYTES // 2]
    if len(zlib.compress(sample, 1)) > _SMALLER * len(sample):
        return None
    return zlib.compress(message, 1, ENCODINGS[encoding])


def answer_encoding(encoding: bytes, accepted: bytes | None) -> bytes:
    """How a call's answers are compressed: as its messages are, if its client says so or nothing; empty: not at all."""
    taken = encoding in ENCODINGS and (accepted is None or encoding in accepted.replace(b" ", b"").split(b","))
    return encoding if taken else b""


def read_timeout(value: bytes) -> float:
    """`grpc-timeout` in seconds, a year at most.

    Raises:
        CallFailed: INVALID_ARGUMENT: it is none.
    """
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        got = value.decode("latin-1")
        sentence = f"grpc-timeout is up to 8 digits and one of H M S m u n; got {got!r:.80}."
        raise CallFailed("INVALID_ARGUMENT", sentence, BAD_REQUEST)
    return min(int(found[1]) * _UNIT_S[found[2]], _LONGEST_TIMEOUT_S)


def malformed(fields: Sequence[Header]) -> str | None:
    """What is wrong with the names of a request's header fields (RFC 9113, 8.2 and 8.3), in a sentence; None: nothing.

    Values may be anything, as for gRPC's own servers: we read few of them.
    """
    seen: set[bytes] = set()
    for at, (name, _) in enumerate(fields):
        if name in _PSEUDO:
            if name in seen:
                return f"A request has one field {name.decode()}; several came."
            if len(seen) < at:
                return f"The field {name.decode()} stands before those without a colon; it came behind."
            seen.add(name)
        elif not _FIELD_NAME.fullmatch(name):
            got = name.decode("latin-1")
            return f"A field's name has small letters, digits and signs but no colon; got {got!r:.80}."
    missing = _NEEDED - seen
    return f"A request has the field {min(missing).decode()}; none came." if missing else None


def is_grpc(content_type: bytes) -> bool:
    """Whether a request says that it is gRPC's: application/grpc, also with a format or parameters behind."""
    return content_type == b"application/grpc" or content_type.startswith((b"application/grpc+", b"application/grpc;"))


def trailers(failure: CallFailed | None) -> list[Header]:
    """The header fields that end a call; None: it was answered."""
    if failure is None:
        return [(b"grpc-status", b"0")]
    fields = [(b"grpc-status", b"%d" % STATUS[failure.status])]
    fields.append((b"grpc-message", quote(failure.message[:_SENTENCE_LIMIT], safe=_READABLE).encode()))
    fields += [(name.encode(), value.encode()) for name, value in failure.metadata]
    return fields
