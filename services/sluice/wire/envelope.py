"""A session's saved state as bytes that can be kept anywhere: a mark, a format number, a checksum and a message.

"SLUICE" · format (1 byte) · 0 · BLAKE2b of what follows (16 bytes) · sluice.v1.SavedState
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from sluice.wire.arrays import read_arrays, write_array
from sluice.wire.messages.v1 import sessions_pb2 as messages

_MARK = b"SLUICE"
_FORMAT = 1
_CHECKSUM_BYTES = 16
_STEPS = 1 << 53  # what every JSON client can count to
_HEAD_BYTES = len(_MARK) + 2


@dataclass(frozen=True, slots=True)
class SavedState:
    """Where a session was: `state` by name, a row each, after `step` time steps of one model version."""

    model: str
    version: int
    step: int
    state: Mapping[str, NDArray[Any]]


def seal(saved: SavedState) -> bytes:
    message = messages.SavedState(model=saved.model, version=saved.version, step=saved.step)
    for name, row in saved.state.items():
        write_array(message.state[name], row)
    payload = message.SerializeToString(deterministic=True)
    return _MARK + _FORMAT.to_bytes(2, "little") + _checksum(payload) + payload


def open_envelope(envelope: bytes) -> SavedState:
    """What `seal` has sealed.

    Raises:
        ValueError: it is something else, of another format, or damaged.
    """
    if not envelope.startswith(_MARK) or len(envelope) < _HEAD_BYTES + _CHECKSUM_BYTES:
        raise ValueError("it is no saved state")
    format_ = int.from_bytes(envelope[len(_MARK) : _HEAD_BYTES], "little")
    if format_ != _FORMAT:
        raise ValueError(f"it is of format {format_}, and this gateway reads format {_FORMAT}")
    checksum, payload = envelope[_HEAD_BYTES : _HEAD_BYTES + _CHECKSUM_BYTES], envelope[_HEAD_BYTES + _CHECKSUM_BYTES :]
    if checksum != _checksum(payload):
        raise ValueError("its checksum is wrong, so it is damaged or cut off")
    try:
        message = messages.SavedState.FromString(payload)
    except DecodeError:
        raise ValueError("its content cannot be read") from None
    if not 0 <= message.step < _STEPS:
        raise ValueError(f"its time step is {message.step}")
    return SavedState(message.model, message.version, message.step, read_arrays(message.state))


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_CHECKSUM_BYTES).digest()
