"""Decides which bounds a model's buckets have, from the lengths that came: those of late count most.

It does not know what the sequences hold, nor what becomes of those that wait under earlier bounds: they keep them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from sluice.policy.buckets import bucket_for, optimal_bounds, padded_elements

_ALL_DIGITS = 64
_UNSEEN = 0.002  # the elements that all sizes together are expected to have besides those that came
_FORGOTTEN = 0.1  # a length that counts less is no longer kept: one sequence, four halvings ago


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """How bounds come about where neither the operator nor the contract gives any.

    given: by model and ragged axis, the bounds that the operator gives.
    buckets: how many bounds are learned for each ragged axis.
    limit: the longest sequence, where the contract does not say it.
    chunks: by model, time steps of a chunk in which its sequences run, instead of the contract's; 0: they run whole.
    """

    given: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    buckets: int = 8
    limit: int = 2048
    chunks: Mapping[str, int] = field(default_factory=dict)


class Lengths:
    """How often each length came: a histogram in bounded memory, in which the past fades.

    counts: length → how often it came, faded.
    """

    def __init__(self, limit: int, *, memory: int = 4096, distinct: int = 256) -> None:
        """Begin with nothing.

        limit: the longest length there is; a longer one counts as this.
        memory: after this many sequences all counts are halved, so that a new mix is half of the histogram when this
            many have come. The larger, the steadier; the smaller, the sooner it follows.
        distinct: lengths that are told apart. When there are more, they are rounded up to fewer leading binary digits,
            as few as needed: the long ones become coarse first, and none by more than its share. After each halving
            the lengths that come are exact again.
        """
        self.counts: dict[int, float] = {}
        self._limit = limit
        self._memory = memory
        self._distinct = distinct
        self._seen = 0  # since counts were halved
        self._keep(_ALL_DIGITS)

    def observe(self, length: int, weight: float = 1.0) -> None:
        """Count one sequence, as `weight` of them."""
        if length > self._exact_to:
            length = min(rounded_up(length, self._digits), self._limit)
        self.counts[length] = self.counts.get(length, 0.0) + weight
        while len(self.counts) > self._distinct:
            self._coarsen()
        self._seen += 1
        if self._seen >= self._memory:
            self._fade()

    def _keep(self, digits: int) -> None:
        self._digits = digits
        self._exact_to = min(1 << max(digits, 0), self._limit)

    def _coarsen(self) -> None:
        self._keep(min(self._digits, self._limit.bit_length()) - 1)
        counts, self.counts = self.counts, {}
        for length, count in counts.items():
            coarse = min(rounded_up(length, self._digits), self._limit)
            self.counts[coarse] = self.counts.get(coarse, 0.0) + count

    def _fade(self) -> None:
        self._seen = 0
        self._keep(_ALL_DIGITS)
        halved = ((length, count / 2) for length, count in self.counts.items())
        self.counts = {length: count for length, count in halved if count >= _FORGOTTEN}


class LearnedBounds:
    """The bounds of one ragged axis: given at first, then the best ones for the lengths that came of late.

    bounds: increasing and inclusive; the last one is always the limit, so that what fits once fits always.
    lengths: what came.
    """

    def __init__(
        self,
        bounds: tuple[int, ...],
        *,
        buckets: int | None = None,
        relearn_every: int = 1024,
        worth: float = 0.02,
        memory: int = 4096,
        weighted: bool = False,
    ) -> None:
        """Begin with `bounds`.

        buckets: how many bounds may be learned; without it, as many as there are at first. Each bucket divides the
            traffic further, so that batches become smaller.
        relearn_every: sequences from one search for better bounds to the next; it takes a millisecond or two.
        worth: the padding that new bounds must save, as a share of the real elements. A change has its price, as rows
            of old and of new bounds do not mix, and the best bounds of a mix that stays do not keep still; but what is
            not worth it is never saved.
        memory: after how many sequences the past counts half; see `Lengths`.
        weighted: sequences have weights of their own.
        """
        self.bounds = bounds
        self._buckets = buckets or len(bounds)
        self._relearn_every = relearn_every
        self._worth = worth
        self.lengths = Lengths(bounds[-1], memory=memory)
        self._weights = Lengths(bounds[-1], memory=memory) if weighted else self.lengths
        self._since = 0  # the last search

    def longest(self) -> int:
        """The longest sequence of late; 0: none."""
        return max(self.lengths.counts, default=0)

    def observe(self, length: int, weight: float = 1.0) -> bool:
        """Count one sequence that was accepted. Returns whether the bounds are others now.

        `weight`, where there are any: how much an element of padding costs here.
        """
        self.lengths.observe(length)
        if self._weights is not self.lengths:
            self._weights.observe(length, weight)
        self._since += 1
        return self._since >= self._relearn_every and self._relearn()

    def _relearn(self) -> bool:
        self._since = 0
        counts = self._expected()
        best = optimal_bounds(counts, self._buckets, self.bounds[-1])
        saved = padded_elements(counts, self.bounds) - padded_elements(counts, best)
        better = saved > self._worth * sum(length * count for length, count in counts.items())
        if better:
            self.bounds = best
        return better

    def _expected(self) -> dict[int, float]:
        """What came, and a little of every size that did not: if it comes after all it finds a bucket near it."""
        counts = dict(self._weights.counts)
        powers = powers_of_two(self.bounds[-1], _ALL_DIGITS)
        share = _UNSEEN * sum(length * count for length, count in counts.items()) / len(powers)
        for power in powers:
            counts[power] = counts.get(power, 0.0) + share / power
        return counts


def observe_row(axes: Sequence[LearnedBounds], lengths: Sequence[int]) -> None:
    """Count a row that was accepted, which has several ragged axes, on each of them.

    It is padded on every axis, so an element more along one costs the product of its bounds on the others. With the
    others' bounds as they are, that is the problem of one axis with weights; and as the axes learn again and again,
    each from the others' bounds, they come to where none can be bettered alone (coordinate descent).
    """
    bounds = [bucket_for(length, axis.bounds) for length, axis in zip(lengths, axes, strict=True)]
    elements = prod(bounds)
    for length, bound, axis in zip(lengths, bounds, axes, strict=True):
        axis.observe(length, elements / bound)


def powers_of_two(limit: int, buckets: int) -> tuple[int, ...]:
    """Bounds for lengths of which nothing is known: `limit` and the powers of two below it, the largest `buckets`."""
    powers = [1 << power for power in range((limit - 1).bit_length())]
    return (*powers, limit)[-buckets:]


def rounded_up(length: int, digits: int) -> int:
    """The next number, from `length` on, that is 0 in binary behind its first `digits` digits."""
    zeros = max(0, length.bit_length() - digits)
    return -(-length >> zeros) << zeros
