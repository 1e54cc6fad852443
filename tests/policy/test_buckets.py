"""Buckets: inclusive bounds, and the best ones against every set of bounds that there is."""

from itertools import combinations, pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.buckets import (
    bucket_for,
    curve,
    optimal_bounds,
    padded_elements,
    padding_share,
)
from sluice.policy.errors import SequenceTooLong

Counts = dict[int, int]

COUNTS = st.dictionaries(st.integers(1, 40), st.integers(1, 20), min_size=1, max_size=7)
BOUNDS = st.sets(st.integers(1, 60), min_size=1, max_size=6).map(lambda bounds: tuple(sorted(bounds)))


def slow_bucket(length: int, bounds: tuple[int, ...]) -> int:
    return min(bound for bound in bounds if bound >= length)


def slow_padding(counts: Counts, bounds: tuple[int, ...]) -> int:
    return sum(count * (slow_bucket(length, bounds) - length) for length, count in counts.items())


def every_choice(lengths: list[int], buckets: int, last: int) -> list[tuple[int, ...]]:
    """All bounds, at most `buckets`, that are lengths and end with `last`: others would only pad more."""
    inner = sorted(set(lengths) - {last})
    return [(*chosen, last) for size in range(buckets) for chosen in combinations(inner, size)]


@pytest.mark.parametrize(("length", "bound"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 10), (10, 10)])
def test_a_bound_belongs_to_its_bucket(length: int, bound: int) -> None:
    assert bucket_for(length, (4, 8, 10)) == bound


def test_a_sequence_longer_than_the_last_bound_is_refused_and_never_cut() -> None:
    with pytest.raises(SequenceTooLong, match=r"up to 10 long; 11 came") as refused:
        bucket_for(11, (4, 8, 10))
    assert refused.value.details == {"limit": 10}


@given(st.integers(1, 60), BOUNDS)
def test_a_bucket_is_the_smallest_that_holds_the_sequence(length: int, bounds: tuple[int, ...]) -> None:
    if length > bounds[-1]:
        with pytest.raises(SequenceTooLong):
            bucket_for(length, bounds)
    else:
        assert bucket_for(length, bounds) == slow_bucket(length, bounds)


@given(COUNTS, BOUNDS)
def test_padding_is_what_each_sequence_lacks_to_its_bound(counts: Counts, bounds: tuple[int, ...]) -> None:
    bounds = (*bounds, 60)
    padding = slow_padding(counts, bounds)
    real = sum(length * count for length, count in counts.items())
    assert padded_elements(counts, bounds) == padding
    assert padding_share(counts, bounds) == pytest.approx(padding / (real + padding))


def test_nothing_counted_is_no_padding() -> None:
    assert padded_elements({}, (4,)) == padding_share({}, (4,)) == 0.0


def test_padding_of_a_sequence_that_fits_no_bucket_is_not_made_up() -> None:
    with pytest.raises(SequenceTooLong):
        padded_elements({3: 1, 5: 1}, (4,))


@given(COUNTS, st.one_of(st.none(), st.integers(0, 5)))
def test_the_bounds_are_as_good_as_the_best_of_all(counts: Counts, beyond: int | None) -> None:
    last = max(counts) + (beyond or 0)
    found = curve(counts, 8, None if beyond is None else last)
    for buckets, bounds in enumerate(found, 1):
        best = min(slow_padding(counts, choice) for choice in every_choice(list(counts), buckets, last))
        assert slow_padding(counts, bounds) == best
        assert len(bounds) <= buckets
        assert bounds[-1] == last
        assert all(lower < upper for lower, upper in pairwise(bounds))


@given(COUNTS, st.floats(0.01, 100.0))
def test_counts_that_have_faded_alike_have_the_same_best_padding(counts: Counts, faded: float) -> None:
    fractions = {length: count * faded for length, count in counts.items()}
    assert slow_padding(counts, optimal_bounds(fractions, 3)) == slow_padding(counts, optimal_bounds(counts, 3))


@given(st.dictionaries(st.integers(1, 200), st.floats(1e-25, 1e25), min_size=1, max_size=30))
def test_bounds_increase_and_the_longest_fits_however_far_apart_the_counts_are(counts: dict[int, float]) -> None:
    for bounds in curve(counts, 5):
        assert bounds[-1] == max(counts)
        assert all(lower < upper for lower, upper in pairwise(bounds))


def test_counts_that_are_lost_in_rounding_do_not_disturb_the_order_of_the_bounds() -> None:
    for bounds in curve({3: 1.0, 19: 1e16, 26: 1.1205842984019017, 27: 3.0, 30: 3.0}, 4):
        assert bounds == tuple(sorted(set(bounds)))
        assert bounds[-1] == 30


@given(COUNTS)
def test_a_length_that_was_never_seen_asks_for_no_bucket(counts: Counts) -> None:
    assert curve(counts | {50: 0}, 4) == curve(counts, 4)


def test_the_curve_falls_until_every_length_has_its_bucket_and_ends_without_padding() -> None:
    counts = {length: 1 + length % 7 for length in range(1, 301, 3)}
    paddings = [padded_elements(counts, bounds) for bounds in curve(counts, 110)]
    assert all(after < before for before, after in pairwise(paddings[:100]))
    assert paddings[99:] == [0.0] * 11


def test_many_lengths_are_as_good_as_a_plain_dynamic_programme() -> None:
    """More lengths than one block, against the recurrence written down."""
    rng = np.random.default_rng(5)
    lengths = sorted(rng.choice(2000, 300, replace=False).tolist())
    counts = {length + 1: int(count) for length, count in zip(lengths, rng.integers(1, 1000, 300), strict=True)}
    lengths = list(counts)
    passed = np.concatenate([[0], np.cumsum(list(counts.values()))])
    real = sum(length * count for length, count in counts.items())
    elements = [0, *[lengths[m - 1] * int(passed[m]) for m in range(1, 301)]]
    for bounds in curve(counts, 12):
        assert padded_elements(counts, bounds) == elements[300] - real
        elements = [0] + [
            min(elements[start] + lengths[m - 1] * int(passed[m] - passed[start]) for start in range(m))
            for m in range(1, 301)
        ]


def test_without_anything_counted_there_is_one_bucket_up_to_the_limit() -> None:
    assert curve({}, 3, limit=9) == [(9,)] * 3
    assert curve({}, 2) == [(), ()]


def test_a_length_at_the_limit_fits_and_one_beyond_it_is_refused() -> None:
    assert optimal_bounds({4: 1, 9: 1}, 2, limit=9) == (4, 9)
    with pytest.raises(SequenceTooLong):
        optimal_bounds({4: 1, 9: 1}, 2, limit=8)


def test_lengths_spread_as_those_of_text_need_eight_buckets_for_a_padding_share_below_a_fifth() -> None:
    """Log-normal with median 20 and 99th percentile 200, cut off at 200: quantiles, so without chance."""
    counts: Counts = {}
    for quantile in np.linspace(-3.5, 3.5, 4001):
        length = min(200, ceil(20 * 10 ** (quantile / 2.3263)))
        counts[length] = counts.get(length, 0) + max(1, round(1e4 * float(np.exp(-(quantile**2) / 2))))
    shares = [padding_share(counts, bounds) for bounds in curve(counts, 20, limit=200)]
    assert shares[7] == pytest.approx(0.18, abs=0.01)
    assert shares[17] == pytest.approx(0.08, abs=0.01)
