"""The cost of a run: found again under noise, not led astray by a stall, and what it says of riding along."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.cost import RunCost

FIXED_S, STEP_S, ELEMENT_S = COSTS = 2e-3, 4e-5, 1e-5
SIZES = (1, 2, 4, 8, 16, 32, 64)
BOUNDS = (4, 8, 16, 32, 64, 128, 200)
Run = tuple[int, int, float]


def run_of(size: int, bound: int, costs: tuple[float, float, float] = COSTS) -> Run:
    fixed_s, step_s, element_s = costs
    return size, bound, fixed_s + (step_s + element_s * size) * bound


def runs(seed: int, count: int, costs: tuple[float, float, float] = COSTS, noise: float = 0.05) -> list[Run]:
    """Batches of all sizes and bounds; noise is the standard deviation of log run_s."""
    rng = np.random.default_rng(seed)
    drawn = zip(rng.choice(SIZES, count).tolist(), rng.choice(BOUNDS, count).tolist(), strict=True)
    exact = [run_of(size, bound, costs) for size, bound in drawn]
    return [
        (size, bound, run_s * factor)
        for (size, bound, run_s), factor in zip(exact, rng.lognormal(0, noise, count).tolist(), strict=True)
    ]


def cost_of(observed: list[Run] | list[tuple[int, int, float, int]]) -> RunCost:
    cost = RunCost()
    for run in observed:
        cost.observe(*run)
    return cost


def found(cost: RunCost) -> tuple[float, float, float]:
    return cost.fixed_s, cost.step_s, cost.element_s


def off(cost: RunCost, costs: tuple[float, float, float] = COSTS) -> float:
    """The largest relative error of what it says a run takes, over all sizes and bounds."""
    pairs = [(run_of(size, bound, costs)[2], run_of(size, bound, found(cost))[2]) for size in SIZES for bound in BOUNDS]
    return max(abs(said / true - 1) for true, said in pairs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "costs",
    [COSTS, (2e-3, 0.0, 1e-6), (5e-4, 3e-4, 1e-4), (0.0, 2e-5, 1e-5), (3e-3, 0.0, 0.0), (8e-4, 2.4e-5, 3.5e-6)],
)
def test_the_cost_is_found_again_under_noise(seed: int, costs: tuple[float, float, float]) -> None:
    cost = cost_of(runs(seed, 600, costs, noise=0.1))
    assert cost.known
    assert off(cost, costs) < 0.2


def test_without_noise_the_cost_is_exact() -> None:
    assert found(cost_of(runs(0, 256, noise=0.0))) == pytest.approx(COSTS, rel=1e-3)


def test_nothing_is_known_and_nothing_rides_before_elements_differ() -> None:
    cost = cost_of([])
    assert not cost.known
    assert not cost.rides(1, 1, 2)
    cost = cost_of([(1, 64, 1e-3), (1, 65, 5e-3), (1, 127, 1e-3)] * 40)
    assert not cost.known
    assert not cost.rides(1, 1, 2)


def test_one_run_of_another_length_tells_nothing_and_three_do() -> None:
    assert not cost_of([(1, 64, 1e-3)] * 31 + [(1, 640, 2e-3)]).known
    assert not cost_of([(1, 64, 1e-3)] * 30 + [(1, 640, 2e-3)] * 2).known
    assert cost_of([(1, 64, 1e-3)] * 29 + [(1, 640, 2e-3)] * 3).known


def test_a_spread_that_was_seen_is_not_lost_while_all_runs_are_alike() -> None:
    assert off(cost_of(runs(1, 400) + [run_of(8, 8)] * 1000)) < 0.15


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 999), st.floats(0.0, 10.0)), min_size=16, max_size=64))
def test_a_cost_is_never_below_nothing_and_finite(observed: list[Run]) -> None:
    cost = cost_of(observed)
    assert np.isfinite(found(cost)).all()
    assert min(found(cost)) >= 0


def test_where_larger_runs_are_faster_elements_cost_nothing() -> None:
    cost = cost_of([(1, 10, 4e-3), (10, 100, 2e-3)] * 8)
    assert 2e-3 <= cost.fixed_s <= 4e-3
    assert (cost.step_s, cost.element_s) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_where_runs_grow_faster_than_their_elements_there_is_no_fixed_cost() -> None:
    assert cost_of([(1, 10, 1e-4), (1, 100, 4e-3)] * 8).fixed_s == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("at", [*range(20), 100, 150, 199])
def test_a_stall_of_a_hundred_times_moves_the_cost_by_little_whenever_it_comes(at: int) -> None:
    observed = runs(7, 304)
    observed[at] = (*observed[at][:2], 100 * observed[at][2])
    cost = RunCost()
    for number, run in enumerate(observed):
        cost.observe(*run)
        if number >= max(at, 200):
            assert off(cost) < 0.25
            assert cost.rides(1, 8, 128)
            assert not cost.rides(16, 8, 128)


def test_the_first_run_of_every_cell_may_stall() -> None:
    stalled = [(size, bound, 100 * FIXED_S) for size in SIZES for bound in BOUNDS]
    assert off(cost_of(stalled + runs(3, 400))) < 0.15


def test_a_lasting_change_is_learned() -> None:
    later = 3 * FIXED_S, STEP_S, 2 * ELEMENT_S
    assert off(cost_of(runs(5, 400) + runs(6, 600, later)), later) < 0.15


def test_what_is_kept_is_bounded_by_the_octaves() -> None:
    cost = cost_of([(size, length, 1e-3) for size in range(1, 50) for length in range(1, 200)])
    assert sum(map(len, cost._cells.values())) <= 4 * 6 * 8


def test_rows_of_late_are_counted_on_average() -> None:
    cost = RunCost()
    for rows in [3, 5] * 100:
        cost.observe(8, 16, 1e-3, rows)
    assert cost.rows == pytest.approx(4, abs=0.1)


@given(st.integers(1, 128), st.integers(1, 200), st.integers(0, 200))
def test_rows_ride_when_their_share_of_a_run_would_cost_more(rows: int, short: int, more: int) -> None:
    cost, long = cost_of(runs(0, 256)), short + more
    assert cost.rows == 1
    alone_s = run_of(rows, short, found(cost))[2]
    along_s = cost.element_s * rows * long
    if along_s != pytest.approx(alone_s):
        assert cost.rides(rows, short, long) == (along_s < alone_s)


def test_where_runs_have_many_rows_few_ride_only_to_a_bucket_that_is_near() -> None:
    cost = cost_of([(*run, 20) for run in runs(0, 256)])
    assert cost.rides(2, 8, 16)  # 0.2 ms of padding for each of 20, against 2.3 ms that 20 would share
    assert not cost.rides(2, 8, 64)
    assert cost_of(runs(0, 256)).rides(2, 8, 64)
