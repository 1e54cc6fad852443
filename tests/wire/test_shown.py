"""How a value that came is shown in a sentence."""

from typing import Any

import pytest

from sluice.wire.shown import as_json

SHOWN = [
    (None, "null"),
    (True, "true"),
    ("é", '"é"'),
    ({"a": [1.5, None]}, '{"a": [1.5, null]}'),
    ("\ud800", '"\\ud800"'),
    (b"bytes", "\"b'bytes'\""),
    ([0] * 1000, "[" + "0, " * 26 + "0"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN)
def test_a_value_is_shown_as_json_and_cut_off(value: Any, text: str) -> None:
    assert as_json(value) == text
    as_json(value).encode()


def test_a_value_that_is_nested_too_deeply_to_be_written_is_named_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert as_json(value) == "a value that is nested too deeply"
