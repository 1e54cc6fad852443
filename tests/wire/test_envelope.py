"""Saved states: they come back as they were, or are refused; nothing between."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.wire.envelope import SavedState, open_envelope, seal
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.tensors import DTYPE_NUMBERS
from tests.wire.examples import same, values

HEAD = 6 + 2 + 16  # mark, format, 0, checksum
SMALL = SavedState("m", 1, 7, {"h": np.array([1.5, -2.5], np.float32), "n": np.array(3)})
ENVELOPE = seal(SMALL)


def equal(got: SavedState, wanted: SavedState) -> None:
    assert (got.model, got.version, got.step) == (wanted.model, wanted.version, wanted.step)
    assert got.state.keys() == wanted.state.keys()
    for name, row in wanted.state.items():
        same(got.state[name], row)


def resealed(payload: bytes) -> bytes:
    """An envelope around other content, with the right checksum."""
    genuine = seal(SavedState("m", 1, 7, {}))
    checksum = blake2b(payload, digest_size=16).digest()
    return genuine[: HEAD - 16] + checksum + payload


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1)], ids=str)
@pytest.mark.parametrize("name", DTYPE_NUMBERS)
def test_a_state_of_every_dtype_comes_back_as_it_was(name: str, shape: tuple[int, ...]) -> None:
    saved = SavedState("temperature", 12, 1 << 40, {"state": values(name).reshape(shape), "other": np.zeros((2, 0))})
    equal(open_envelope(seal(saved)), saved)


@pytest.mark.parametrize("name", DTYPE_NUMBERS)
def test_a_scalar_state_comes_back_as_it_was(name: str) -> None:
    saved = SavedState("m", 1, 0, {"state": values(name)[1:2].reshape(())})
    equal(open_envelope(seal(saved)), saved)


@given(model=st.text(), version=st.integers(0, 2**63 - 1), step=st.integers(0, 2**53 - 1), names=st.sets(st.text()))
def test_whatever_the_names_and_numbers_are_they_come_back(
    model: str, version: int, step: int, names: set[str]
) -> None:
    saved = SavedState(model, version, step, {name: np.array([i]) for i, name in enumerate(sorted(names))})
    equal(open_envelope(seal(saved)), saved)


def test_equal_states_make_equal_envelopes_in_whatever_order_they_were_saved() -> None:
    state = {str(i): np.array(i) for i in range(50)}
    backwards = dict(reversed(state.items()))
    assert seal(SavedState("m", 1, 7, state)) == seal(SavedState("m", 1, 7, backwards))


def test_an_envelope_begins_with_its_mark_and_format() -> None:
    assert ENVELOPE[:8] == b"SLUICE\x01\x00"


@pytest.mark.parametrize("at", range(len(ENVELOPE)))
def test_an_envelope_that_is_damaged_anywhere_is_refused(at: int) -> None:
    for damage in (0x01, 0x80, 0xFF):
        damaged = bytearray(ENVELOPE)
        damaged[at] ^= damage
        with pytest.raises(ValueError):
            open_envelope(bytes(damaged))


def test_an_envelope_that_is_cut_off_anywhere_is_refused() -> None:
    for length in range(len(ENVELOPE)):
        with pytest.raises(ValueError):
            open_envelope(ENVELOPE[:length])


def test_an_envelope_with_more_behind_it_is_refused() -> None:
    with pytest.raises(ValueError, match="checksum"):
        open_envelope(ENVELOPE + b"\0")


@pytest.mark.parametrize("foreign", [b"", b"S", b"SLUICE", b"hello world, this is quite another file", b"\0" * 100])
def test_something_else_is_no_saved_state(foreign: bytes) -> None:
    with pytest.raises(ValueError, match="it is no saved state"):
        open_envelope(foreign)


@given(foreign=st.binary(max_size=100))
def test_whatever_the_bytes_are_they_are_refused_with_a_sentence(foreign: bytes) -> None:
    for envelope in (foreign, ENVELOPE[:6] + foreign, ENVELOPE[:HEAD] + foreign):
        with pytest.raises(ValueError):
            open_envelope(envelope)


@given(payload=st.binary(max_size=60))
def test_content_that_was_sealed_by_somebody_else_is_read_or_refused(payload: bytes) -> None:
    try:
        saved = open_envelope(resealed(payload))
    except ValueError:
        return
    assert saved.step >= 0


@pytest.mark.parametrize("format", [0, 2, 255])
def test_another_format_is_told_apart_from_damage(format: int) -> None:
    other = ENVELOPE[:6] + bytes([format]) + ENVELOPE[7:]
    with pytest.raises(ValueError, match=f"it is of format {format}, and this gateway reads format 1"):
        open_envelope(other)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"\xff\xff\xff", "its content cannot be read"),
        (messages.SavedState(model="m", step=-1).SerializeToString(), "its time step is -1"),
        (messages.SavedState(model="m", step=1 << 53).SerializeToString(), "its time step is 9007199254740992"),
        (messages.SavedState(state={"h": messages.Tensor(dtype="no")}).SerializeToString(), "'h': dtype 'no' is none"),
    ],
)
def test_a_right_checksum_does_not_make_wrong_content_right(payload: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_envelope(resealed(payload))
