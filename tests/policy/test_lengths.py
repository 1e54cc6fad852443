"""Lengths and learned bounds: memory that is bounded and fades, and bounds that follow the mix and then keep still."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.buckets import bucket_for, optimal_bounds, padding_share
from sluice.policy.lengths import LearnedBounds, Lengths, observe_row, powers_of_two, rounded_up
from tests.size import size

LENGTHS = st.lists(st.integers(1, 300), max_size=80)


def text_lengths(seed: int, count: int, median: float = 20.0) -> list[int]:
    """Log-normal, the 99th percentile ten times the median, cut off at 200."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), np.log(10) / 2.326, count)
    lengths: list[int] = np.ceil(np.clip(drawn, 1, 200)).astype(int).tolist()
    return lengths


def counted(lengths: Sequence[int]) -> Counter[int]:
    return Counter(lengths)


def changes(learned: LearnedBounds, lengths: Sequence[int]) -> list[int]:
    """After which of `lengths` the bounds changed, from 1."""
    return [number for number, length in enumerate(lengths, 1) if learned.observe(length)]


@given(LENGTHS)
def test_lengths_are_counted_as_they_came(lengths: list[int]) -> None:
    histogram = Lengths(300)
    for length in lengths:
        histogram.observe(length)
    assert histogram.counts == counted(lengths)


def test_a_length_beyond_the_limit_counts_as_the_limit() -> None:
    histogram = Lengths(5)
    for length in (5, 6, 1000):
        histogram.observe(length)
    assert histogram.counts == {5: 3}


@given(LENGTHS, st.integers(1, 30))
def test_memory_is_bounded_and_no_length_is_lost_or_made_shorter(lengths: list[int], distinct: int) -> None:
    histogram = Lengths(300, distinct=distinct)
    for length in lengths:
        histogram.observe(length)
        assert len(histogram.counts) <= distinct
    assert sum(histogram.counts.values()) == len(lengths)
    assert max(histogram.counts, default=0) <= 300
    for length in lengths:  # as many are at least so long as before
        assert sum(count for kept, count in histogram.counts.items() if kept >= length) >= sum(
            other >= length for other in lengths
        )


def test_the_long_lengths_become_coarse_first_and_none_by_more_than_its_share() -> None:
    histogram = Lengths(1 << 20, distinct=256)
    for length in range(1, 20_000, 3):
        histogram.observe(length)
    kept = sorted(histogram.counts)
    assert kept[:6] == [1, 4, 7, 10, 13, 16]
    assert 64 < len(kept) <= 256
    for length in range(1, 20_000, 3):
        assert length <= bucket_for(length, kept) <= length * (1 + 1 / 16)


@given(st.integers(1, 5000), st.integers(1, 14))
def test_rounding_keeps_the_leading_digits_and_rounding_twice_is_rounding_once(length: int, digits: int) -> None:
    def is_coarse(number: int) -> bool:
        return "1" not in f"{number:b}"[digits:]

    rounded = rounded_up(length, digits)
    assert rounded == next(number for number in range(length, 2 * length + 1) if is_coarse(number))
    assert rounded_up(rounded, digits) == rounded
    assert rounded_up(rounded_up(length, digits + 1), digits) == rounded


def test_the_past_counts_half_after_so_many_lengths_and_is_forgotten_at_last() -> None:
    histogram = Lengths(100, memory=4)
    for length in [3, 3, 3, 9]:
        histogram.observe(length)
    assert histogram.counts == {3: 1.5, 9: 0.5}
    for length in [5] * 4:
        histogram.observe(length)
    assert histogram.counts == {3: 0.75, 9: 0.25, 5: 2.0}
    for length in [5] * 8:
        histogram.observe(length)
    assert histogram.counts == {3: 0.1875, 5: 3.5}


def test_a_new_mix_is_half_of_what_is_remembered_when_as_many_have_come_as_the_memory() -> None:
    histogram = Lengths(100, memory=1000)
    for length in [10] * 20_500 + [20] * 1000:
        histogram.observe(length)
    assert histogram.counts[20] == pytest.approx(histogram.counts[10], rel=1e-3)


def test_lengths_are_exact_again_after_the_counts_were_halved() -> None:
    histogram = Lengths(1000, memory=200, distinct=20)
    for length in range(801, 1001):
        histogram.observe(length)
    for _ in range(800):
        histogram.observe(777)
    assert histogram.counts[777] > 100


@pytest.mark.parametrize(
    ("limit", "buckets", "bounds"),
    [
        (200, 20, (1, 2, 4, 8, 16, 32, 64, 128, 200)),
        (200, 3, (64, 128, 200)),
        (64, 3, (16, 32, 64)),
        (2, 5, (1, 2)),
        (1, 5, (1,)),
    ],
)
def test_bounds_for_the_unknown_double_up_to_the_limit(limit: int, buckets: int, bounds: tuple[int, ...]) -> None:
    assert powers_of_two(limit, buckets) == bounds


def test_the_longest_of_late_is_told() -> None:
    learned = LearnedBounds((100, 200))
    assert learned.longest() == 0
    for length in (7, 150, 12):
        learned.observe(length)
    assert learned.longest() == 150


def test_bounds_are_those_given_until_enough_was_seen_and_then_the_best() -> None:
    learned = LearnedBounds((100, 200), relearn_every=50)
    assert changes(learned, [10] * 49) == []
    assert learned.bounds == (100, 200)
    assert learned.observe(10)
    assert learned.bounds == (10, 200)


def test_as_many_bounds_are_learned_as_are_allowed() -> None:
    lengths = [5, 6, 7, 90, 91, 92]
    for first in ((200,), powers_of_two(200, 8)):
        learned = LearnedBounds(first, buckets=3, relearn_every=6)
        assert changes(learned, lengths * 2) == [6]
        assert learned.bounds == (7, 92, 200)


def test_fewer_bounds_than_there_are_must_be_worth_it_too() -> None:
    learned = LearnedBounds((10, 20, 30, 40), buckets=2, relearn_every=4)
    assert changes(learned, [10, 20, 30, 40]) == []


def test_a_saving_that_is_not_worth_it_changes_nothing() -> None:
    lengths = [10] * 50 + [90] * 50  # 5000 elements; bounds of 11 and 90 pad 50 of them
    assert changes(LearnedBounds((11, 90), relearn_every=100, worth=0.02), lengths) == []
    assert changes(LearnedBounds((11, 90), relearn_every=100, worth=0.0099), lengths) == [100]


def test_one_length_that_fills_the_histogram_leaves_buckets_for_the_others() -> None:
    learned = LearnedBounds(powers_of_two(2048, 8), buckets=8)
    changes(learned, [10] * 5000)
    assert learned.bounds[-1] == 2048
    assert 10 in learned.bounds
    assert all(bucket_for(length, learned.bounds) <= 8 * length for length in range(10, 2049))


def test_bounds_of_a_mix_that_stays_are_learned_once_and_do_not_flap() -> None:
    learned = LearnedBounds(powers_of_two(200, 8), relearn_every=500, memory=4000)
    assert changes(learned, text_lengths(seed=1, count=60_000)) == [500]
    lengths = text_lengths(seed=2, count=20_000)
    best = optimal_bounds(counted(lengths), 8, 200)
    assert padding_share(counted(lengths), learned.bounds) < padding_share(counted(lengths), best) + 0.02


@pytest.mark.parametrize(("shortest", "longest"), [(1, 30), (130, 200)])
def test_bounds_follow_a_change_of_the_mix_and_keep_still_again(shortest: int, longest: int) -> None:
    learned = LearnedBounds(powers_of_two(200, 8), relearn_every=500, memory=4000)
    changes(learned, text_lengths(seed=3, count=10_000))
    before = learned.bounds
    lengths: list[int] = np.random.default_rng(4).integers(shortest, longest + 1, 40_000).tolist()
    assert 1 <= len(changes(learned, lengths)) <= 4
    best = padding_share(counted(lengths), optimal_bounds(counted(lengths), 8, 200))
    assert padding_share(counted(lengths), before) > best + 0.06
    assert padding_share(counted(lengths), learned.bounds) < best + 0.03


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.integers(1, 6), st.integers(1, 9))
def test_whatever_is_learned_the_longest_still_fits(lengths: list[int], buckets: int, every: int) -> None:
    learned = LearnedBounds((64,), buckets=buckets, relearn_every=every, memory=20)
    for length in lengths:
        learned.observe(length)
        assert learned.bounds[-1] == bucket_for(64, learned.bounds) == 64
        assert len(learned.bounds) <= buckets
        assert list(learned.bounds) == sorted(set(learned.bounds))


def cells(rows: Sequence[tuple[int, int]], bounds: Sequence[Sequence[int]]) -> int:
    """The elements that rows take, padded on both axes."""
    return sum(bucket_for(source, bounds[0]) * bucket_for(target, bounds[1]) for source, target in rows)


def learn_both(
    rows: Sequence[tuple[int, int]], buckets: tuple[int, int], limits: tuple[int, int]
) -> list[LearnedBounds]:
    axes = [
        LearnedBounds((limit,), buckets=count, relearn_every=len(rows), worth=0.0, memory=len(rows), weighted=True)
        for limit, count in zip(limits, buckets, strict=True)
    ]
    for row in list(rows) * 12:
        observe_row(axes, row)
    return axes


def test_two_axes_learn_from_what_they_have_in_common() -> None:
    """Long targets make it dear to pad their sources: the sources' bounds go where the long targets are."""
    rows = [(1, 10)] * 90 + [(5, 10)] * 100 + [(9, 100)] * 50 + [(10, 100)] * 50
    assert optimal_bounds(counted([source for source, _ in rows]), 3) == (1, 5, 10)
    assert [axis.bounds for axis in learn_both(rows, (3, 2), (10, 100))] == [(5, 9, 10), (10, 100)]
    came = learn_both(rows, (3, 2), (10, 100))[0].lengths.counts
    assert [came[length] / came[9] for length in (1, 5, 10)] == pytest.approx([1.8, 2, 1])


@pytest.mark.parametrize("seed", range(size(2, 5)))
def test_what_two_axes_learn_is_near_the_best_of_all_and_better_than_each_by_itself(seed: int) -> None:
    dice = np.random.default_rng(seed)
    sources = np.clip(dice.lognormal(1.2, 0.6, 400), 1, 12).astype(int)
    targets = np.clip(sources + dice.integers(-2, 3, 400), 1, 12)
    rows = [(int(source), int(target)) for source, target in zip(sources, targets, strict=True)]
    learned = cells(rows, [axis.bounds for axis in learn_both(rows, (3, 3), (12, 12))])
    choices = [(*inner, 12) for inner in combinations(range(1, 12), 2)]
    best = min(cells(rows, (first, second)) for first in choices for second in choices)
    alone = cells(rows, [optimal_bounds(counted(axis.tolist()), 3, 12) for axis in (sources, targets)])
    assert best <= learned <= 1.02 * best
    assert learned <= alone
