"""Decides which lengths share a bucket: the bounds to which sequences are padded, and which are best for what came.

It does not know what the sequences hold, nor how their lengths came to be counted. Bounds are increasing and inclusive:
a sequence belongs to the smallest bound that is not below its length, and the last bound is the longest one accepted.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.errors import SequenceTooLong

Array = NDArray[Any]

_BLOCK = 64  # lengths looked at together: the arrays stay small, the calls few


def bucket_for(length: int, bounds: Sequence[int]) -> int:
    """The bound to which a sequence of `length` is padded.

    Raises:
        SequenceTooLong: longer than the last bound.
    """
    index = bisect_left(bounds, length)
    if index == len(bounds):
        raise SequenceTooLong(
            f"A sequence may be up to {bounds[-1]} long; {length} came. Send a shorter one, or raise bucket_bounds or "
            "sequence_limit.",
            limit=bounds[-1],
        )
    return bounds[index]


def padded_elements(counts: Mapping[int, float], bounds: Sequence[int]) -> float:
    """How many elements are padding when sequences, counted by length, are padded to their bounds.

    Raises:
        SequenceTooLong: a length is longer than the last bound.
    """
    lengths, weights = _arrays(counts)
    if lengths.size:
        bucket_for(int(lengths[-1]), bounds)
    return float((_padded(lengths, bounds) - lengths) @ weights)


def padding_share(counts: Mapping[int, float], bounds: Sequence[int]) -> float:
    """Padding's share of all elements, real and padded, in 0 to 1; 0 where nothing is counted."""
    padding = padded_elements(counts, bounds)
    real = sum(length * count for length, count in counts.items())
    return padding / (real + padding) if padding else 0.0


def optimal_bounds(counts: Mapping[int, float], buckets: int, limit: int | None = None) -> tuple[int, ...]:
    """The bounds, `buckets` at most, with the fewest padded elements for sequences counted by length.

    The last one is the largest length, or `limit`, so that longer ones than were counted still fit.

    Raises:
        SequenceTooLong: a length is longer than `limit`.
    """
    return curve(counts, buckets, limit)[-1]


def curve(counts: Mapping[int, float], buckets: int, limit: int | None = None) -> list[tuple[int, ...]]:
    """`optimal_bounds` of 1, 2, ... `buckets` buckets, found together: what one bucket more would save.

    Dynamic programming over the distinct lengths: the best bounds of the m shortest lengths are a last bucket, which
    starts somewhere, and the best bounds with one bucket less of the lengths before it.
    """
    lengths, weights = _arrays(counts)
    if limit is not None:
        longest = int(lengths[-1]) if lengths.size else 0
        if bucket_for(longest, (limit,)) > longest:
            lengths, weights = np.append(lengths, limit), np.append(weights, 0.0)
    passed = np.concatenate([[0.0], np.cumsum(weights)])
    elements = np.full(len(passed), inf)  # by m: those of the m shortest lengths, padded to the best bounds
    elements[0] = 0.0
    starts: list[Array] = []
    found: list[tuple[int, ...]] = []
    for _ in range(buckets):
        elements, start = _with_one_more(elements, lengths, passed)
        starts.append(start)
        found.append(_traced(starts, lengths))
    return found


def _arrays(counts: Mapping[int, float]) -> tuple[Array, Array]:
    """The lengths that were counted, increasing, and how often: int64 `[n]` and float64 `[n]`."""
    lengths = sorted(length for length, count in counts.items() if count > 0)
    return np.array(lengths, np.int64), np.array([counts[length] for length in lengths], np.float64)


def _padded(lengths: Array, bounds: Sequence[int]) -> Array:
    """The bound of each length."""
    return np.array(bounds, np.int64)[np.searchsorted(bounds, lengths)]


def _with_one_more(elements: Array, lengths: Array, passed: Array) -> tuple[Array, Array]:
    """With one bucket more than `elements` is for: elements, and how many lengths come before the last bucket.

    All are by m, the number of shortest lengths: float64 and int64 `[n + 1]`; `passed` is how many sequences they are.
    The last bucket of more lengths never starts earlier (padding obeys the quadrangle inequality; F. F. Yao, 1980), so
    a block of lengths need only look at starts between those of the block's ends: about n in all, not n for each.
    """
    more, start = np.zeros_like(elements), np.zeros(len(elements), np.int64)
    low = 0
    for first in range(0, len(lengths), _BLOCK):
        last = min(first + _BLOCK, len(lengths))
        high = low + int(np.argmin(elements[low:last] - lengths[last - 1] * passed[low:last])) + 1
        ends = slice(first + 1, last + 1)
        ways = elements[low:high] + lengths[first:last, np.newaxis] * (passed[ends, np.newaxis] - passed[low:high])
        # A start behind the end is never the least, as its lengths are longer; but counts may be lost in rounding.
        start[ends] = np.minimum(low + ways.argmin(axis=1), np.arange(first, last))
        more[ends] = ways.min(axis=1)
        low = high - 1
    return more, start


def _traced(starts: Sequence[Array], lengths: Array) -> tuple[int, ...]:
    """The bounds that the last of `starts` stands for, followed back to the first bucket."""
    bounds: list[int] = []
    end = len(lengths)
    for start in reversed(starts):
        if end:
            bounds.append(int(lengths[end - 1]))
            end = int(start[end])
    return tuple(reversed(bounds))
