"""The soak's rules with made-up series, and what is seen, killed and drawn with real processes."""

import math
import random

import pytest

from loadtests.soak import judging
from loadtests.soak.judging import Series, TooFew
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


@pytest.mark.parametrize("direction", [1, -1])
def test_memory_that_moves_by_more_than_two_percent_from_the_second_quarter_to_the_last_is_not_flat(direction):
    found = judging.memory(series(rising_by(direction * 0.05)))
    assert found.holds is False
    assert found.change == pytest.approx(direction * 0.025 / (1 + direction * 0.05 * 3 / 8), rel=1e-3)


def test_memory_that_moves_by_less_is_flat():
    assert judging.memory(series(rising_by(0.03))).holds is True
    assert judging.memory(series(flat)).change == 0


def test_memory_that_grows_in_steps_is_not_flat_however_rare_they_are():
    steps = judging.memory(series(lambda t: 150 * MIB + 2 * MIB * (t // 600)))
    assert steps.holds is False
    assert steps.last - steps.second == pytest.approx(2 * MIB * 3, rel=0.01)


def test_memory_that_rises_and_falls_again_and_again_is_flat():
    assert judging.memory(series(lambda t: 150 * MIB + 30 * MIB * (t % 97) / 97)).holds is True


def test_what_a_gateway_takes_at_the_start_does_not_count():
    assert judging.memory(series(lambda t: 150 * MIB - 60 * MIB * math.exp(-t / 120))).holds is True


@pytest.mark.parametrize("seed", range(5))
def test_noise_neither_hides_a_rise_nor_makes_one(seed):
    shaken = noise(seed, 5 * MIB)
    assert judging.memory(series(lambda t: flat(t) + shaken())).holds is True
    assert judging.memory(series(lambda t: rising_by(0.06)(t) + shaken())).holds is False


def test_a_short_load_does_not_tell_whether_memory_is_flat():
    short = series(rising_by(10), load_s=60)
    assert judging.memory(short).holds is None
    assert judging.memory(short).change > judging.MEMORY_CHANGE
    assert judging.memory(series(flat, load_s=judging.TELLING_S)).holds is True


def test_a_quarter_is_found_by_time_not_by_the_number_of_samples():
    dense = series(flat, every_s=0.5).at_s[: int(HOUR)]  # the first half, twice as often
    sparse = [at for at in series(flat).at_s if at > HOUR / 2]
    at = [*dense, *sparse]
    found = judging.memory(Series(at, [1.0 if each < HOUR / 2 else 2.0 for each in at], HOUR))
    assert (found.second, found.last) == (1.0, 2.0)


def test_a_quarter_without_samples_is_told():
    with pytest.raises(TooFew, match="quarter 4 of a load of 3600 s"):
        judging.memory(Series([1.0, 1000.0], [1.0, 1.0], HOUR))


def test_what_is_more_every_hour_is_the_slope_from_the_second_quarter_on():
    jump = series(lambda t: 7 * MIB * t / HOUR + (0 if t < HOUR / 4 else 50 * MIB))
    assert jump.hourly() == pytest.approx(7 * MIB, rel=1e-6)


def test_descriptors_that_are_not_closed_are_found_even_if_it_is_one_in_five_minutes():
    coming = noise(1, 1.5)
    assert judging.descriptors(series(lambda t: 60 + round(coming()) + t // 300)).holds is False


@pytest.mark.parametrize("seed", range(5))
def test_descriptors_that_come_and_go_with_clients_are_flat(seed):
    coming = noise(seed, 3)
    assert judging.descriptors(series(lambda t: 60 + round(coming()))).holds is True
    assert judging.descriptors(series(lambda t: 60 + round(coming()), load_s=60)).holds is True


def test_descriptors_are_judged_in_a_short_load_too():
    assert judging.descriptors(series(lambda t: 60 + t // 5, load_s=60)).holds is False


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
