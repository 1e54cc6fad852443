"""A number on a page that is no longer true is noticed."""

import pytest

from tests.docs.numbers import Written, prints


@pytest.mark.parametrize(
    ("shown", "came"), [("22.582153", 22.511995), ("0.31", 0.13), ("-0.0012", 0.0012), ("1.0", 2.0)]
)
def test_another_number_is_noticed(shown: str, came: float) -> None:
    assert not Written(shown).is_near(came)


@pytest.mark.parametrize(("shown", "came"), [("22.511995", 22.511997), ("0.13", 0.1266), ("-0.0012", -0.00118)])
def test_the_same_number_rounded_is_accepted(shown: str, came: float) -> None:
    assert Written(shown).is_near(came)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("1 [2.5]", "2 [2.5]"),
        ("1 [2.5]", "1 [2]"),
        ("1 [2.5]", "1 [2.6]"),
        ("one\n", "one\ntwo\n"),
        ("1.5.", "1.5"),
        ("[25.1\n 25.2]", "[25.1\n 25.3]"),
        ("at … 1.5", "at noon 1.6"),
    ],
)
def test_a_print_that_differs_is_noticed(shown: str, printed: str) -> None:
    assert prints(shown, shown)
    assert not prints(shown, printed)


def test_an_ellipsis_stands_for_anything() -> None:
    assert prints("found in … s\n[1.50]", "found in 0.7 s\n[1.5]")
