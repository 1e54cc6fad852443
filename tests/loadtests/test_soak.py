"""The soak's figures of made-up series, and what is seen, killed and told of real processes."""

import math
import random

import pytest

from loadtests.soak.figures import Series, TooFew, change
from loadtests.soak.killing import kill_times

HOUR = 3600.0
MIB = 2**20


def series(value, load_s=HOUR, every_s=1.0):
    """What a process holds that holds `value(t)` at second t, looked at every second."""
    at = [every_s * number for number in range(1, int(load_s / every_s) + 1)]
    return Series(at, [value(each) for each in at], load_s)


def noise(seed, spread):
    draw = random.Random(seed)
    return lambda: draw.gauss(0, spread)


def flat(_):
    return 150 * MIB


def rising_by(share_an_hour):
    return lambda t: 150 * MIB * (1 + share_an_hour * t / HOUR)


def memory_change(value):
    return change(series(value).means())


def descriptors_growth(value, load_s=HOUR):
    second, last = series(value, load_s).medians()
    return last - second


@pytest.mark.parametrize("direction", [1, -1])
def test_memory_that_moves_changes_by_as_much_as_from_the_middle_of_the_second_quarter_to_that_of_the_last(direction):
    expected = 0.05 * (7 / 8 - 3 / 8) / (1 + direction * 0.05 * 3 / 8)
    assert memory_change(rising_by(direction * 0.05)) == pytest.approx(expected, rel=1e-3)


def test_memory_that_stays_does_not_change():
    assert memory_change(flat) == 0


def test_memory_that_grows_in_rare_steps_changes():
    assert memory_change(lambda t: 150 * MIB + 2 * MIB * (t // 600)) == pytest.approx(6 / 153, rel=0.02)


def test_memory_that_rises_and_falls_again_and_again_does_not_change():
    assert memory_change(lambda t: 150 * MIB + 30 * MIB * (t % 97) / 97) < 0.005


def test_what_a_gateway_takes_at_the_start_does_not_count():
    assert memory_change(lambda t: 150 * MIB - 60 * MIB * math.exp(-t / 120)) < 0.001


@pytest.mark.parametrize("seed", range(5))
def test_noise_neither_hides_a_change_nor_makes_one(seed):
    shaken = noise(seed, 5 * MIB)
    assert memory_change(lambda t: flat(t) + shaken()) < 0.005
    assert memory_change(lambda t: rising_by(0.05)(t) + shaken()) > 0.02


def test_a_quarter_is_found_by_time_not_by_the_number_of_samples():
    dense = series(flat, every_s=0.5).at_s[: int(HOUR)]  # the first half, twice as often
    sparse = [at for at in series(flat).at_s if at > HOUR / 2]
    at = [*dense, *sparse]
    assert Series(at, [1.0 if each < HOUR / 2 else 2.0 for each in at], HOUR).means() == (1.0, 2.0)


def test_a_quarter_without_samples_is_told():
    with pytest.raises(TooFew, match="got none in quarter 2 of 3600 s"):
        Series([1.0, 1000.0, 3000.0][::2], [1.0, 1.0], HOUR).means()


def test_what_is_more_every_hour_is_the_slope_from_the_second_quarter_on():
    jump = series(lambda t: 7 * MIB * t / HOUR + (0 if t < HOUR / 4 else 50 * MIB))
    assert jump.hourly() == pytest.approx(7 * MIB, rel=1e-6)


def test_descriptors_that_are_not_closed_grow_even_if_it_is_one_in_five_minutes():
    coming = noise(1, 1.5)
    assert descriptors_growth(lambda t: 60 + round(coming()) + t // 300) == pytest.approx(6, abs=1)
    assert descriptors_growth(lambda t: 60 + t // 5, load_s=60) == 6


@pytest.mark.parametrize("seed", range(5))
def test_descriptors_that_come_and_go_with_clients_do_not_grow(seed):
    coming = noise(seed, 3)
    assert abs(descriptors_growth(lambda t: 60 + round(coming()))) <= 1
    assert abs(descriptors_growth(lambda t: 60 + round(coming()), load_s=60)) <= 2


@pytest.mark.parametrize("load_s", [30, 60, 300, 1000, 3600])
def test_a_model_server_is_killed_once_at_least_and_has_time_to_come_back(load_s):
    for seed in range(20):
        times = kill_times(load_s, seed)
        assert len(times) == max(1, round(load_s / 300))
        assert times == kill_times(load_s, seed)
        part = load_s / len(times)
        gaps = [b - a for a, b in zip([0, *times], [*times, load_s], strict=True)]
        assert min(gaps) >= part / 4
    assert kill_times(load_s, 1) != kill_times(load_s, 2)
