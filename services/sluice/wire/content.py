"""Request bodies that were compressed on their way; what they hold is not its concern."""

import zlib
from typing import Any

from sluice.policy.errors import BadRequest, BodyTooLarge

_GZIP = 16 + zlib.MAX_WBITS  # what zlib calls a gzip header around the data
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
_GZIP_BEGINS = b"\x1f\x8b"
_MEMBERS_LIMIT = 10_000  # of a gzip body; each costs time, however small it is
_PART = 256  # bytes of a member that are read at first


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its `Content-Encoding`; never more than `limit` bytes are made of it.

    A gzip body may have several members, one after another (RFC 1952, section 2.2).

    Raises:
        BadRequest: the encoding is not known, or the body is not what it says.
        BodyTooLarge: it would become larger than `limit`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _FORMATS:
        raise BadRequest(f"Content-Encoding is gzip, deflate or identity; got {encoding!r:.80}.")
    try:
        return _inflated(body, name, limit)
    except zlib.error as error:
        raise BadRequest(f"The body is not {name}, as its Content-Encoding says: {error}.") from None


def check_plain(body: bytes) -> None:
    """Raises: BadRequest: a body that came without a `Content-Encoding` begins as gzip does, and no JSON."""
    if body.startswith(_GZIP_BEGINS):
        raise BadRequest("The body is compressed with gzip and does not say so: send Content-Encoding: gzip with it.")


def _inflated(body: bytes, name: str, limit: int) -> bytes:
    plain, rest, part = bytearray(), memoryview(body), len(body)
    for _ in range(_MEMBERS_LIMIT):
        reader = zlib.decompressobj(_FORMATS[name])
        size = _read(reader, rest, part, plain, limit + 1)
        if len(plain) > limit:
            raise BodyTooLarge(
                f"A request body may have {limit} bytes; this one has more when inflated. Send parts.", limit=limit
            )
        if not reader.eof:
            raise BadRequest(f"The {name} body ends before its end. Send it whole.")
        rest, part = rest[size:], _PART
        if not rest:
            return bytes(plain)
        if _FORMATS[name] != _GZIP:
            raise BadRequest(f"The {name} body has {len(rest)} bytes behind its end. Send it without them.")
    raise BadRequest(f"A {name} body may have {_MEMBERS_LIMIT} members; this one has more. Compress it in fewer.")


def _read(reader: Any, data: memoryview, part: int, plain: bytearray, limit: int) -> int:
    """Read one member into `plain`, which may grow to `limit` bytes; the member's own size.

    It is read in growing parts, since the reader copies what of a part is not its own.
    """
    at = 0
    while at < len(data) and not reader.eof and len(plain) < limit:
        plain += reader.decompress(data[at : at + part], limit - len(plain))
        at += part
        part *= 2
    return min(at, len(data)) - len(reader.unused_data)
