"""What the cases of generation send: the model's name and tokens, and how much each request asks for."""

from functools import cache

import numpy as np
import orjson

from loadtests.bench.workloads.lengths import log_normal, whole

GENERATOR = "generator256"  # an encoder and a decoder, each a GRU of 256; the end token is never the likeliest
ENCODE, DECODE = "encode", "decode"
SOURCE, TOKEN, LOGITS, STATE = "source", "token", "logits", "decoder/h"
LENGTHS = "lengths"
TOKENS, START, END = 64, 1, 2
MAX_STEPS = 128
SOURCE_LONGEST = 24
PATH = f"/v1/models/{GENERATOR}:generate"
SLOTS = 32  # instances at a time
POOL = 1024
_SEED = 19


@cache
def steps() -> tuple[int, ...]:
    """How many tokens each request asks for: log-normal, median 16, 99th percentile `MAX_STEPS`."""
    return tuple(whole(log_normal(np.random.default_rng(_SEED), POOL, 16.0, MAX_STEPS), MAX_STEPS).tolist())


@cache
def sources() -> tuple[list[int], ...]:
    """What each request has encoded: tokens, 4 to `SOURCE_LONGEST` of them."""
    dice = np.random.default_rng(_SEED + 1)
    sizes = dice.integers(4, SOURCE_LONGEST + 1, POOL)
    return tuple(dice.integers(END + 1, TOKENS, size).tolist() for size in sizes)


def http_requests(*, stream: bool) -> list[bytes]:
    """Whole HTTP requests, one instance each; `stream`: for server-sent events."""
    return [_http({"instances": [source], "max_steps": most, "stream": stream})
            for source, most in zip(sources(), steps(), strict=True)]  # fmt: skip


def _http(fields: dict[str, object]) -> bytes:
    body = orjson.dumps(fields)
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
