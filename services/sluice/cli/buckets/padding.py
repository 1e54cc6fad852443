"""What padding costs on one ragged axis, now and with the best bounds of every number of buckets, in numbers.

It does not know where the lengths were counted, nor how numbers are shown. Elements are counted along this axis alone:
one for each time step, say, whatever it holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sluice.policy.buckets import curve, padded_elements, padding_share
from sluice.policy.scanning import padded_chunk

Counts = Mapping[int, float]  # length → how often it came

MOST_BUCKETS = 16
WORTH = 0.02  # of the real elements: a bucket that saves less is not worth its smaller batches
_BODY = 0.99  # of the rows: the longest ones share the histogram's last line


@dataclass(frozen=True, slots=True)
class Ragged:
    """A ragged axis: its lengths, and its bounds where a gateway tells them.

    Names are empty where a file does not tell them. `learned` says whether the bounds follow the lengths that come;
    `chunk` is how many elements run at a time, 0 where sequences run whole, None where nothing says it.
    """

    signature: str
    axis: str
    counts: Counts
    bounds: tuple[int, ...] = ()
    learned: bool = False
    chunk: int | None = None

    @property
    def rows(self) -> float:
        return sum(self.counts.values())

    @property
    def too_long(self) -> float:
        """How many rows are longer than the last bound."""
        return sum(count for length, count in self.counts.items() if self.bounds and length > self.bounds[-1])

    def padding(self) -> "Padding":
        """What the present bounds cost, for the rows that they let in."""
        return _padding(self._accepted(), self.bounds)

    def in_chunks(self) -> "Padding":
        """What chunks cost these rows: the last one of each is padded."""
        counts, chunk = self._accepted(), self.chunk or 1
        padded = {length - length % chunk + padded_chunk(length % chunk, chunk) for length in counts if length % chunk}
        return _padding(counts, tuple(sorted({max(each, 1) for each in counts if not each % chunk} | padded)))

    def _accepted(self) -> Counts:
        return {length: count for length, count in self.counts.items() if length <= self.bounds[-1]}

    def best(self) -> "list[Padding]":
        """The best bounds of 1, 2, … `MOST_BUCKETS` buckets, and one more; fewer where more would save nothing.

        What is accepted now stays so: the last bound is not below the present one.
        """
        limit = max((*self.counts, *self.bounds[-1:], 1))
        # An empty row is padded as one of 1 is: a bound is never 0.
        at_least_1: dict[int, float] = {}
        for length, count in self.counts.items():
            at_least_1[max(length, 1)] = at_least_1.get(max(length, 1), 0) + count
        bounds = curve(at_least_1, MOST_BUCKETS + 1, limit)
        return [_padding(self.counts, each) for buckets, each in enumerate(bounds, 1) if len(each) == buckets]


@dataclass(frozen=True, slots=True)
class Padding:
    """What bounds cost: elements of padding, their share of all elements and relative to the `real` ones."""

    bounds: tuple[int, ...]
    elements: float
    real: float
    share: float

    @property
    def relative(self) -> float:
        """To the real elements; infinite where there are none."""
        return self.per_real(self.elements)

    def per_real(self, elements: float) -> float:
        if not elements:
            return 0.0
        return elements / self.real if self.real else float("inf")


def _padding(counts: Counts, bounds: tuple[int, ...]) -> Padding:
    real = sum(length * count for length, count in counts.items())
    return Padding(bounds, padded_elements(counts, bounds), real, padding_share(counts, bounds))


def savings(best: list[Padding]) -> list[float]:
    """The elements that one bucket more saves, for each of `best` but the last; none where every length has its own."""
    return [fewer.elements - more.elements for fewer, more in pairwise(best)]


def worthwhile(best: list[Padding]) -> Padding:
    """The fewest buckets to which one more would add less than `WORTH`: what one more saves only ever falls."""
    for padding, saved in zip(best, savings(best), strict=False):
        if padding.per_real(saved) < WORTH:
            return padding
    return best[min(len(best), MOST_BUCKETS) - 1]


def grouped(counts: Counts, most: int = 20) -> list[tuple[int, int, float]]:
    """`most` ranges of lengths or fewer, first and last length each, and how many rows are in them.

    They are equally wide, 1, 2, 5, 10, … lengths, except for the last, which takes the rare long rows.
    """
    passed, body = 0.0, 0
    for body in sorted(counts):
        passed += counts[body]
        if passed >= _BODY * sum(counts.values()):
            break
    return next(groups for width in _widths() if len(groups := _groups(counts, body, width)) <= most)


def _widths() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _groups(counts: Counts, body: int, width: int) -> list[tuple[int, int, float]]:
    longest = max(counts)
    start = (min(counts) - 1) // width * width + 1
    ranges = [(max(first, 0), first + width - 1) for first in range(start, body + 1, width)]
    if ranges[-1][1] < longest:
        ranges.append((ranges[-1][1] + 1, longest))
    return [(low, high, sum(n for length, n in counts.items() if low <= length <= high)) for low, high in ranges]
