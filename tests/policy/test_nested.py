"""Where nested lists differ, in words, and that it is said of exactly those that numpy makes no array of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.nested import unevenness

UNEVEN = [
    ([[1, 2, 3], [4, 5]], "row 1 has 2 values where row 0 has 3 values"),
    ([[1], [2], []], "row 2 has 0 values where row 0 has 1 value"),
    ([1, [1, 2, 3]], "row 1 has 3 values where row 0 is a single value"),
    ([[1, 2, 3], 4], "row 1 is a single value where row 0 has 3 values"),
    ([[], [1]], "row 1 has 1 value where row 0 has 0 values"),
    ([[1, 2, 3], [4, 5, [6]]], "row 1[2] has 1 value where row 0[0] is a single value"),
    ([[[1], [2]], [[3], [4, 5]]], "row 1[1] has 2 values where row 0[0] has 1 value"),
    ([["a", "b"], ["c"]], "row 1 has 1 value where row 0 has 2 values"),
]


@pytest.mark.parametrize(("value", "said"), UNEVEN)
def test_the_first_row_that_differs_is_named_with_both_lengths(value: Any, said: str) -> None:
    assert unevenness(value) == said


def test_lists_that_are_nested_too_deeply_are_named_so() -> None:
    value: Any = 1
    for _ in range(900):
        value = [value]
    assert unevenness([value]) == "lists are nested more than 64 deep"


@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=12))
def test_something_is_said_of_exactly_what_is_no_array(value: Any) -> None:
    try:
        np.array(value)
    except ValueError:
        assert unevenness(value)
    else:
        assert not unevenness(value)
