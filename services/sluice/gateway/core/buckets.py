"""The buckets of every signature that takes sequences: given by the operator, by the contract, or learned from traffic.

It does not know how they are chosen; that is a rule.
"""

import sys
from collections.abc import Iterable, Sequence

import structlog

from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.buckets import bucket_for
from sluice.policy.contract import Signature
from sluice.policy.cost import RunCost
from sluice.policy.lengths import BucketOptions, LearnedBounds, observe_row, powers_of_two
from sluice.policy.scanning import ChunkLength
from sluice.policy.sequences import Lengths

log = structlog.get_logger()


class Buckets:
    """The bounds of one signature's ragged axes by name, in its order, and what lengths came.

    `given` names the axes whose bounds stay as they are: the operator or the contract gives them. `chunk` is how many
    time steps run at a time where sequences can be scanned.
    """

    def __init__(self, model: str, signature: Signature, options: BucketOptions) -> None:
        given = {**signature.bounds, **options.given.get(model, {})}
        self.given = frozenset(given)
        several = len(signature.ragged_axes) > 1
        self.axes = {
            axis.name: _bounds(given.get(axis.name), options, weighted=several) for axis in signature.ragged_axes
        }
        self._bounds = tuple(self.axes.values())
        said = signature.scanning.chunk if signature.scanning else 0
        self._chunk = ChunkLength(options.chunks.get(model, said) if signature.scanning else 0)

    def chunk(self, in_chunks: RunCost, whole: RunCost) -> int:
        """Time steps of a chunk, as runs cost, no more than a sequence may have; 0: sequences run whole, in buckets."""
        axis = self._bounds[0]  # where sequences can be scanned there is one
        return min(self._chunk.of(in_chunks, whole, axis.longest), axis.bounds[-1])

    def bounds_for(self, lengths: Lengths) -> Lengths:
        """The bucket of a row; one without elements is padded to one.

        Raises:
            SequenceTooLong: it is longer than the last bound.
        """
        return tuple(
            bucket_for(max(length, 1), axis.bounds) for length, axis in zip(lengths, self._bounds, strict=True)
        )

    def bounds_together(self, rows: Sequence[Lengths]) -> Lengths:
        """To what rows are padded that are a batch of their own: given bounds, or else the longest row's own lengths.

        Bounds that are learned may be others the next time, when an equal request would get other last bits.

        Raises:
            SequenceTooLong: a row is longer than the last bound.
        """
        longest = tuple(map(max, zip(*rows, strict=True)))
        bounds = zip(self.axes, longest, self.bounds_for(longest), strict=True)
        return tuple(bound if axis in self.given else max(length, 1) for axis, length, bound in bounds)

    @property
    def last_bounds(self) -> Lengths:
        return tuple(axis.bounds[-1] for axis in self._bounds)

    def observe(self, rows: Iterable[Lengths]) -> None:
        """Count the rows of a request that was accepted."""
        for lengths in rows:
            observe_row(self._bounds, [max(length, 1) for length in lengths])


def _bounds(given: Sequence[int] | None, options: BucketOptions, *, weighted: bool) -> LearnedBounds:
    """Bounds that are given stay."""
    if given is not None:
        return LearnedBounds(tuple(given), relearn_every=sys.maxsize)
    return LearnedBounds(powers_of_two(options.limit, options.buckets), buckets=options.buckets, weighted=weighted)


class BucketTable:
    """The buckets of all signatures, made when the first request needs them."""

    def __init__(self, options: BucketOptions) -> None:
        self._options = options
        self._of: dict[tuple[str, int, str], Buckets] = {}

    def of(self, served: ServedVersion, signature: Signature) -> Buckets:
        key = served.model, served.version, signature.name
        if key not in self._of:
            self._of[key] = Buckets(served.model, signature, self._options)
        return self._of[key]

    def check(self, served: ServedVersion) -> None:
        """Warn of a setting that has no effect on a version that is new."""
        if served.model in self._options.chunks and not any(each.scanning for each in served.signatures.values()):
            log.warning(
                "setting has no effect", setting="scan_chunks", model=served.model, version=served.version,
                reason="the contract names no scan for sequences, so they run whole",
            )  # fmt: skip

    def forget(self, model: str, version: int) -> None:
        """A version is no longer served."""
        self._of = {key: buckets for key, buckets in self._of.items() if key[:2] != (model, version)}
