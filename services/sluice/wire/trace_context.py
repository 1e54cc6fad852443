"""The trace that a request belongs to, as W3C's Trace Context says it in headers and in gRPC's metadata.

Specification: https://www.w3.org/TR/trace-context/. Nothing is added to a trace here: what came is what goes on.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?")
_STATE = re.compile(rb"[\x20-\x7e]{1,512}")  # what metadata can say, and no more than everybody has to pass on
_FIRST_VERSION = b"00"
_PARENT_BYTES = 512
_ID = slice(3, 35)  # of a traceparent


class Trace(NamedTuple):
    """A `traceparent` that can be read, and its `tracestate`; empty: there is none."""

    parent: str
    state: str = ""

    @property
    def id(self) -> str:
        """The trace's id, which all its requests have: 32 digits."""
        return self.parent[_ID]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What gRPC passes on."""
        parent = ("traceparent", self.parent)
        return (parent, ("tracestate", self.state)) if self.state else (parent,)


def read_trace(headers: Iterable[tuple[bytes, bytes]]) -> Trace | None:
    """The trace that headers tell of, their names in lower case; None: of none, or of none that can be read."""
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value.strip())
        elif name == b"tracestate":
            states.append(value.strip())
    if len(parents) != 1 or len(parents[0]) > _PARENT_BYTES or not (read := _PARENT.fullmatch(parents[0])):
        return None
    if read[1] == _FIRST_VERSION and read[2] is not None:  # later ones may say more
        return None
    state = b",".join(filter(None, states))
    return Trace(parents[0].decode(), state.decode() if _STATE.fullmatch(state) else "")
