"""How long the sequences of a run are, and which batches the offline ideal makes of them.

All of it is drawn from seeds that stand here, so every run sends the same.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.buckets import optimal_bounds, padded_elements, padding_share

Array = NDArray[Any]

LONGEST = 200
POOL = 4096  # sequences of a mix, which are sent in one order again and again
PROBES = 256
WINDOW = 128  # requests that the offline ideal knows at a time: as many as there are clients
_Z_99 = 2.3263478740408408  # of the standard normal distribution's 99th percentile


@dataclass(frozen=True, slots=True)
class Mix:
    """A distribution of lengths: `draw(dice, count)` gives them, not yet whole nor within bounds."""

    name: str
    title: str
    seed: int
    draw: Callable[[np.random.Generator, int], Array]


def log_normal(dice: np.random.Generator, count: int, median: float, percentile_99: float) -> Array:
    """Float64 `[count]`."""
    return dice.lognormal(log(median), log(percentile_99 / median) / _Z_99, count)


def two_humps(dice: np.random.Generator, count: int, short: float, long: float, deviation: float) -> Array:
    """Float64 `[count]`: half about `short`, half about `long`, each with a standard deviation of this share."""
    centres = np.where(dice.random(count) < 0.5, short, long)
    return dice.normal(centres, deviation * centres)


LOG_NORMAL = Mix(
    "lognormal", "log-normal lengths, median 20", 11, lambda dice, count: log_normal(dice, count, 20.0, LONGEST)
)
BIMODAL = Mix(
    "bimodal", "lengths about 10 and about 150", 12, lambda dice, count: two_humps(dice, count, 10.0, 150.0, 0.2)
)
MIXES = (LOG_NORMAL, BIMODAL)


def whole(lengths: Array, longest: int) -> Array:
    """Int64 `[n]`: rounded, and clipped to 1 … `longest`."""
    return np.clip(np.rint(lengths), 1, longest).astype(np.int64)


@cache
def lengths_of(mix: Mix) -> tuple[int, ...]:
    """The lengths of a mix's sequences, in the order in which they are sent."""
    return tuple(whole(mix.draw(np.random.default_rng(mix.seed), POOL), LONGEST).tolist())


def is_short(lengths: Sequence[int]) -> Array:
    """Bool `[n]`: which sequences are of the shortest quarter, those as long as its longest among them."""
    found: Array = np.array(lengths) <= np.quantile(lengths, 0.25, method="inverted_cdf")
    return found


def optimum_share(lengths: Sequence[int], buckets: int) -> float:
    """The share of padding in all elements under the best `buckets` bounds for these lengths."""
    counts = Counter(lengths)
    return padding_share(counts, optimal_bounds(counts, buckets, LONGEST))


def probes(lengths: Sequence[int], count: int = PROBES) -> list[int]:
    """Places of `count` sequences that stand for all of them: each in the middle of its share, shortest first."""
    order = np.argsort(lengths, kind="stable")
    return order[(np.arange(count) * len(order) + len(order) // 2) // count].tolist()  # type: ignore[no-any-return]


def padding_over_optimum(padding: float, lengths: Sequence[int], all_lengths: Sequence[int], buckets: int) -> float:
    """The padded elements of `lengths`, over those under the best `buckets` bounds for all lengths of the mix."""
    best = optimal_bounds(Counter(all_lengths), buckets, LONGEST)
    return padding / padded_elements(Counter(lengths), best)


def windows(lengths: Sequence[int], window: int, size: int) -> Iterator[list[list[int]]]:
    """The batches of the offline ideal, as places in `lengths`: of each window, sorted by length, `size` at a time.

    A last window that is not full is left out.
    """
    for start in range(0, len(lengths) - window + 1, window):
        order = sorted(range(start, start + window), key=lengths.__getitem__)
        yield [order[first : first + size] for first in range(0, window, size)]


def elements(lengths: Sequence[int], batch: Sequence[int]) -> int:
    """What a batch takes, padded to its longest sequence."""
    return len(batch) * max(lengths[place] for place in batch)
