"""Compressed bodies: made whole again, and bounded."""

import gzip
import tracemalloc
import zlib

import pytest

from sluice.policy.errors import BadRequest, BodyTooLarge
from sluice.wire.content import inflate

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


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert inflate(gzip.compress(BODY), "gzip", len(BODY)) == BODY
