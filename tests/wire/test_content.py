"""Compressed bodies: made whole again, and bounded."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sluice.policy.errors import BadRequest, BodyTooLarge
from sluice.wire.content import inflate
from tests.size import size

BODY = b'{"instances": [1.0]}' * 9
LIMIT = 1000


def packed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)  # the time stands in the bytes, and these in the names of tests


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [("gzip", packed(BODY)), (" GZIP", packed(BODY)), ("deflate", zlib.compress(BODY)), ("", BODY),
     ("identity", BODY)],
)  # fmt: skip
def test_a_body_is_as_it_was_before_its_encoding(encoding: str, sent: bytes) -> None:
    assert inflate(sent, encoding, LIMIT) == BODY


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [("gzip", b"no gzip"), ("gzip", b""), ("gzip", packed(BODY)[:-1]), ("deflate", packed(BODY)),
     ("br", BODY), ("gzip, gzip", packed(packed(BODY)))],
)  # fmt: skip
def test_what_is_not_as_its_encoding_says_is_refused(encoding: str, sent: bytes) -> None:
    with pytest.raises(BadRequest):
        inflate(sent, encoding, LIMIT)


def test_a_bomb_is_refused_before_it_takes_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge) as caught:
            inflate(bomb, "gzip", 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.details == {"limit": 100_000}


@settings(max_examples=size(100, 2000))
@given(st.lists(st.tuples(st.binary(max_size=3000), st.sampled_from([0, 1, 9])), min_size=1, max_size=6), st.data())
def test_all_members_of_a_body_are_read_and_nothing_else(members: list[tuple[bytes, int]], data: st.DataObject) -> None:
    sent = b"".join(gzip.compress(part, level, mtime=0) for part, level in members)
    whole = b"".join(part for part, _ in members)
    assert inflate(sent, "gzip", len(whole)) == whole
    if whole:
        with pytest.raises(BodyTooLarge):
            inflate(sent, "gzip", len(whole) - 1)
    rubbish = data.draw(st.binary(min_size=1, max_size=20))
    assume(not rubbish.startswith(b"\x1f\x8b"))
    with pytest.raises(BadRequest):
        inflate(sent + rubbish, "gzip", 10**6)
    with pytest.raises(BadRequest):
        inflate(zlib.compress(whole) + rubbish, "deflate", 10**6)


def test_members_that_each_end_at_any_size_are_told_apart() -> None:
    for length in range(700):  # around the sizes of the parts that they are read in
        member = gzip.compress(random.Random(length).randbytes(length), 0, mtime=0)
        assert inflate(packed(b"a") + member + packed(b"z"), "gzip", LIMIT)[-1:] == b"z"


def test_more_members_than_a_body_may_have_are_refused() -> None:
    with pytest.raises(BadRequest, match="10000 members"):
        inflate(packed(b"") * 10_001, "gzip", LIMIT)
    assert inflate(packed(b"") * 9_999 + packed(b"a"), "gzip", LIMIT) == b"a"


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert inflate(gzip.compress(BODY), "gzip", len(BODY)) == BODY
