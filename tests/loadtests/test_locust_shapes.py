import pytest

from loadtests.locust.shapes import SHAPES, STAIRS

LENGTH_S, MOST = 200.0, 40


@pytest.mark.parametrize(
    ("name", "at_s", "users"),
    [
        ("ramp", 0, 1),
        ("ramp", 50, 10),
        ("ramp", 199, 40),
        ("steps", 0, 8),
        ("steps", 39.9, 8),
        ("steps", 40, 16),
        ("steps", 199, 40),
        ("spike", 0, 8),
        ("spike", 79, 8),
        ("spike", 80, 40),
        ("spike", 119, 40),
        ("spike", 120, 8),
        ("soak", 0, 1),
        ("soak", 5, 20),
        ("soak", 10, 40),
        ("soak", 199, 40),
    ],
)
def test_each_shape_has_its_users_at_each_time(name: str, at_s: float, users: int) -> None:
    assert SHAPES[name].users(at_s, LENGTH_S, MOST) == users


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("length_s", [1.0, 90.0, 3600.0])
def test_a_shape_has_a_user_at_least_reaches_the_most_and_ends_with_its_run(
    name: str, most: int, length_s: float
) -> None:
    users = [SHAPES[name].users(length_s * i / 1000, length_s, most) for i in range(1000)]
    assert min(users) >= 1
    assert max(users) == most
    assert SHAPES[name].users(length_s, length_s, most) is None


def test_stairs_are_of_equal_height_and_length() -> None:
    users = [SHAPES["steps"].users(i, STAIRS * 7, STAIRS * 4) for i in range(STAIRS * 7)]
    assert users == [4 * (stair + 1) for stair in range(STAIRS) for _ in range(7)]


def test_a_long_soak_has_all_its_users_after_a_minute() -> None:
    assert SHAPES["soak"].users(60, 36_000, 100) == 100
    assert SHAPES["soak"].users(30, 36_000, 100) == 50
