"""Which pages from elsewhere a browser lets read answers: what these say to it, and answers to its preflights.

It does not know calls or connections. See the Fetch standard, "HTTP extensions" of CORS (fetch.spec.whatwg.org).
"""

from collections.abc import Iterable, Sequence

from sluice.gateway.http.headers import Header

ANY = "*"
_METHODS = b"GET, POST, PUT, DELETE"
_EXPOSED = b"Sluice-Session, Sluice-Code, Sluice-Replayed, X-Request-Id, Retry-After, Inference-Header-Content-Length"
_PREFLIGHT_S = b"600"  # for so long a browser need not ask again


class Cors:
    """Origins, `scheme://host[:port]` or `*`, whose pages may read answers; no cookies, which mean nothing here."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, request: Iterable[Header]) -> tuple[Header, ...]:
        """What every answer to a request with these headers says besides."""
        if self._any:
            return (b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)
        origin = _value(request, b"origin")
        vary = (b"vary", b"Origin")
        if origin not in self._origins:
            return (vary,)
        return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), vary

    def preflight(self, method: bytes, request: Iterable[Header]) -> tuple[Header, ...]:
        """What the answer to a preflight says besides `headers`; empty: it is none, or of a page that is not let in."""
        if method != b"OPTIONS" or not _value(request, b"access-control-request-method"):
            return ()
        origin = _value(request, b"origin")
        if not origin or not (self._any or origin in self._origins):
            return ()
        asked = _value(request, b"access-control-request-headers")
        return (
            (b"access-control-allow-methods", _METHODS),
            *([(b"access-control-allow-headers", asked)] if asked else []),
            (b"access-control-max-age", _PREFLIGHT_S),
        )


def _value(request: Iterable[Header], name: bytes) -> bytes:
    return next((value for each, value in request if each == name), b"")
