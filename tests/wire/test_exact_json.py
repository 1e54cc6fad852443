"""JSON as TensorFlow Serving's RapidJSON 1.1 reads it; the expected values are that reader's."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.wire.exact_json import Members, may_repeat, pairs_of, read_as_tf_serving
from tests.size import size

READ: dict[bytes, Any] = {
    b"[Inf, -Inf, Infinity, -Infinity]": [math.inf, -math.inf, math.inf, -math.inf],
    b"[-0, -0.0, 1E+05, 1e-400]": [0, -0.0, 1e5, 0.0],
    b"[18446744073709551615, 18446744073709551616]": [(1 << 64) - 1, float(1 << 64)],
    b"[-9223372036854775808, -9223372036854775809]": [-(1 << 63), float(-(1 << 63))],
    b"[1.8e308, 10e308, 0.1e309, 1e308]": [math.inf, math.inf, 1e308, 1e308],
    b'["Inf", "-NaN", "\\"Inf"]': ["Inf", "-NaN", '"Inf'],
    b'["\\ud83d\\ude00", "\\\\ud83d", "\\/\\b\\u0000"]': ["\U0001f600", r"\ud83d", "/\b\0"],
    b'["\xff", "\xc3\xa9", "\\udc00"]': ["\udcff", "\u00e9", "\udced\udcb0\udc80"],
    b"\xef\xbb\xbf [1]": [1],
    b'{"a": 1} {"b": 2}': {"a": 1},
    b"[1]\0": [1],
}

REFUSED = [
    b"", b" ", b"\0[1]", b"[1,]", b"[01]", b"[1.]", b"[.5]", b"[1e]", b"[+1]", b"[--1]", b"[nan]", b"[Infini]", b"[-]",
    b"[1e309]", b"[0e400]", b"[-1e999]", b"[" + b"9" * 400 + b"]", b'["\t"]', b'["\\x"]', b'["\\ud83d"]',
    b'["\\ud83d\\u0041"]', b'["\\udc00\\ud83d"]', b"['a']", b'{"a"}', b'{"a":1,}', b"{1:2}", b"[tru]", b"[1 2]",
    b"[1\0]", b"// x\n[1]", b"[1", b"\xff\xfe[\x001\x00]\x00",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_a_text_is_read_as_there(text: bytes, value: Any) -> None:
    assert repr(read_as_tf_serving(text)) == repr(value)


def test_minus_nan_is_a_number() -> None:
    assert all(map(math.isnan, read_as_tf_serving(b"[NaN, -NaN]")))


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_there_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_as_tf_serving(text)


def test_of_a_key_that_comes_twice_the_first_counts_and_all_are_kept() -> None:
    twice = read_as_tf_serving(b'{"a": 1, "b": 2, "a": 3}')
    assert (dict(twice), twice["a"]) == ({"a": 1, "b": 2}, 1)
    assert [*pairs_of(twice)] == [("a", 1), ("b", 2), ("a", 3)]
    assert type(read_as_tf_serving(b'{"a": {"b": 1}}')["a"]) is dict


KEYS = st.sampled_from(["a", "b", "inputs", "instances", "b64"])
LEAVES = st.sampled_from(["1", "null", '"x"', '"a:b"', '"\\":"', '":"', '"}"', "[1, 2]", "[]"])


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(KEYS, st.sampled_from(["", " ", "\n \t"]), values), max_size=4)
    return members.map(lambda each: "{" + ",".join(f'"{key}"{space}:{value}' for key, space, value in each) + "}")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda each: f"[{','.join(each)}]")


TEXTS = st.recursive(LEAVES, lambda inner: lists(inner) | objects(inner), max_leaves=8)


def repeats(value: Any) -> bool:
    """Whether an object has a key twice, or one within it."""
    if isinstance(value, Members):
        return True
    return any(map(repeats, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def test_a_key_that_comes_twice_is_not_made_up_for_by_a_row_of_text() -> None:
    body = b'{"a":1,"a":1,"instances":[{},"x"]}'
    assert may_repeat(body, orjson.loads(body))


@settings(max_examples=size(300, 20_000))
@given(objects(TEXTS))
def test_a_key_that_comes_twice_is_never_missed(text: str) -> None:
    body = text.encode()
    assert may_repeat(body, orjson.loads(body)) or not repeats(read_as_tf_serving(body))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1.0, 2.0]] * 3},
        {"inputs": {"a": [[1]], "b": [2]}, "signature_name": "other"},
        {"instances": [{"a": [1], "b": "12:30"}, {"a": [2], "b": "http://x"}]},
        {"instances": [{"image": {"b64": "aGVsbG8="}}]},
        {"inputs": [{"b64": "aGVsbG8="}, {"b64": ""}]},
        {},
    ],
)
def test_what_clients_send_is_not_read_again(body: Any) -> None:
    for separators in ((",", ":"), (", ", ": ")):
        assert not may_repeat(json.dumps(body, separators=separators).encode(), body)
