"""Request bodies that were compressed on their way; what they hold is not its concern."""

import zlib

from sluice.policy.errors import BadRequest, BodyTooLarge

_GZIP = 16 + zlib.MAX_WBITS  # what zlib calls a gzip header around the data
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its `Content-Encoding`; never more than `limit` bytes are made of it.

    Raises:
        BadRequest: the encoding is not known, or the body is not what it says.
        BodyTooLarge: it would become larger than `limit`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _FORMATS:
        raise BadRequest(f"Content-Encoding is gzip, deflate or identity; got {encoding!r:.80}.")
    reader = zlib.decompressobj(_FORMATS[name])
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not {name}, as its Content-Encoding says: {error}.") from None
    if len(plain) > limit:
        raise BodyTooLarge(f"A request body may have {limit} bytes; this one has more when inflated.", limit=limit)
    if not reader.eof:
        raise BadRequest(f"The {name} body ends before its end. Send it whole.")
    return plain
