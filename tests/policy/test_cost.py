"""The cost of a run: found again under noise, not led astray by a stall, and what it says of riding along."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.cost import RunCost

FIXED_S, ELEMENT_S = 2e-3, 1e-5
SIZES = (1, 2, 4, 8, 16, 32, 64)
BOUNDS = (4, 8, 16, 32, 64, 128, 200)


def runs(seed: int, count: int, fixed_s: float, element_s: float, noise: float) -> list[tuple[int, float]]:
    """`(elements, run_s)` of batches of all sizes and bounds; noise is the standard deviation of log run_s."""
    rng = np.random.default_rng(seed)
    elements = rng.choice(SIZES, count) * rng.choice(BOUNDS, count)
    run_s = (fixed_s + element_s * elements) * rng.lognormal(0, noise, count)
    return list(zip(elements.tolist(), run_s.tolist(), strict=True))


def cost_of(observed: list[tuple[int, float]]) -> RunCost:
    cost = RunCost()
    for elements, run_s in observed:
        cost.observe(elements, run_s)
    return cost


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("fixed_s", "element_s"), [(2e-3, 1e-6), (2e-3, 1e-5), (5e-4, 1e-4), (0.0, 1e-5), (3e-3, 0.0)])
def test_the_cost_is_found_again_under_noise(seed: int, fixed_s: float, element_s: float) -> None:
    cost = cost_of(runs(seed, 400, fixed_s, element_s, noise=0.1))
    assert cost.known
    assert cost.fixed_s == pytest.approx(fixed_s, rel=0.25, abs=2e-5)
    assert cost.element_s == pytest.approx(element_s, rel=0.1, abs=5e-8)


def test_without_noise_the_cost_is_exact() -> None:
    cost = cost_of(runs(0, 64, FIXED_S, ELEMENT_S, noise=0.0))
    assert (cost.fixed_s, cost.element_s) == pytest.approx((FIXED_S, ELEMENT_S))


def test_nothing_is_known_and_nothing_rides_before_sizes_differ() -> None:
    cost = cost_of([])
    assert not cost.known
    assert not cost.rides(1, 1, 2)
    cost = cost_of([(64, 1e-3), (65, 5e-3), (127, 1e-3)] * 40)
    assert not cost.known
    assert not cost.rides(1, 1, 2)


def test_one_run_of_another_size_tells_nothing_and_three_do() -> None:
    assert not cost_of([(64, 1e-3)] * 31 + [(640, 2e-3)]).known
    assert not cost_of([(64, 1e-3)] * 30 + [(640, 2e-3)] * 2).known
    assert cost_of([(64, 1e-3)] * 29 + [(640, 2e-3)] * 3).known


def test_a_spread_that_was_seen_is_not_lost_while_all_runs_are_of_one_size() -> None:
    cost = cost_of(runs(1, 200, FIXED_S, ELEMENT_S, noise=0.05) + [(64, FIXED_S + 64 * ELEMENT_S)] * 1000)
    assert (cost.fixed_s, cost.element_s) == pytest.approx((FIXED_S, ELEMENT_S), rel=0.15)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.0, 10.0)), min_size=16, max_size=64))
def test_a_cost_is_never_below_nothing(observed: list[tuple[int, float]]) -> None:
    cost = cost_of(observed)
    assert cost.fixed_s >= 0
    assert cost.element_s >= 0


def test_where_larger_runs_are_faster_elements_cost_nothing() -> None:
    cost = cost_of([(10, 4e-3), (1000, 2e-3)] * 8)
    assert (cost.fixed_s, cost.element_s) == (3e-3, 0.0)


def test_where_runs_grow_faster_than_their_elements_there_is_no_fixed_cost() -> None:
    cost = cost_of([(10, 1e-4), (100, 4e-3)] * 8)
    assert (cost.fixed_s, cost.element_s) == pytest.approx((0.0, 2.5e-5))


@pytest.mark.parametrize("at", [*range(20), 100, 150, 199])
def test_a_stall_of_a_hundred_times_moves_the_cost_by_little_whenever_it_comes(at: int) -> None:
    observed = runs(7, 208, FIXED_S, ELEMENT_S, noise=0.05)
    observed[at] = (observed[at][0], 100 * observed[at][1])
    cost = RunCost()
    for number, (elements, run_s) in enumerate(observed):
        cost.observe(elements, run_s)
        if number >= max(at, 40):
            assert (cost.fixed_s, cost.element_s) == pytest.approx((FIXED_S, ELEMENT_S), rel=0.25)
            assert cost.rides(1, 8, 128)
            assert not cost.rides(16, 8, 128)


def test_the_first_run_of_every_size_may_stall() -> None:
    observed = [(size * bound, 100 * FIXED_S) for size in SIZES for bound in BOUNDS]
    cost = cost_of(observed + runs(3, 400, FIXED_S, ELEMENT_S, noise=0.05))
    assert (cost.fixed_s, cost.element_s) == pytest.approx((FIXED_S, ELEMENT_S), rel=0.15)


def test_a_lasting_change_is_learned() -> None:
    cost = cost_of(runs(5, 300, FIXED_S, ELEMENT_S, noise=0.05) + runs(6, 160, 3 * FIXED_S, 2 * ELEMENT_S, noise=0.05))
    assert (cost.fixed_s, cost.element_s) == pytest.approx((3 * FIXED_S, 2 * ELEMENT_S), rel=0.15)


def test_what_is_kept_is_bounded_by_the_octaves() -> None:
    cost = cost_of([(elements, 1e-3) for elements in range(1, 5000)])
    assert sum(map(len, cost._octaves.values())) <= 8 * 13


@given(st.integers(1, 128), st.integers(1, 200), st.integers(0, 200))
def test_rows_ride_when_a_run_of_their_own_would_cost_more(rows: int, short: int, more: int) -> None:
    cost = cost_of(runs(0, 64, FIXED_S, ELEMENT_S, noise=0.05))
    long = short + more
    alone_s = cost.fixed_s + cost.element_s * rows * short
    along_s = cost.element_s * rows * long
    if along_s != pytest.approx(alone_s):
        assert cost.rides(rows, short, long) == (along_s < alone_s)
