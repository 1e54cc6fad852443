"""Compares a model server's batches with the CPU's single rows, times them, and chooses batch sizes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtests.gpu_check.asked import Refused, Server, Version
from loadtests.gpu_check.rows import Row, batch, bounds_of, difference, draw, own
from sluice.policy.contract import Contract, Signature

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SEED = 21
_ROWS = 6  # different ones of a bucket; larger batches repeat them
_NEARLY = 0.9  # of the most rows a second are as good as all
_WORTH = 1.25  # how much longer the next size must take for a smaller one to be kept


@dataclass(slots=True)
class Found:
    """What came of one signature, padded to `bounds`: by batch size the largest difference, and seconds of a batch.

    `refused` is what the model server said where it did not answer, by size too.
    """

    version: Version
    signature: str
    bounds: Mapping[str, int]
    differences: dict[int, float] = field(default_factory=dict)
    batch_s: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def wrong(self, tolerance: float) -> list[int]:
        """The sizes whose answers are not the CPU's, or did not come."""
        return sorted({size for size, each in self.differences.items() if each > tolerance} | self.refused.keys())


def check(cpu: Server, server: Server, version: Version, sizes: Sequence[int], seconds: float) -> Iterator[Found]:
    """Every signature of a model, padded to the least and to the greatest length.

    Raises:
        Refused: one of the two does not serve the model, or has no contract of it.
    """
    contract = cpu.contract(version)
    server.contract(version)
    for name, signature in contract.signatures.items():
        for bounds in bounds_of(signature):
            found = Found(version, name, bounds)
            rows = [*_rows(contract, signature, bounds)]
            expected = [_alone(cpu, version, signature, row) for row in rows]
            for size in sizes:
                _compare(server, signature, rows, expected, size, found, seconds)
            yield found


def _rows(contract: Contract, signature: Signature, bounds: Mapping[str, int]) -> Iterator[Row]:
    """Rows of many lengths; the last, which stands for filler, has length 1, as the shortest one that a GPU takes."""
    dice = np.random.default_rng(SEED)
    for place in range(_ROWS):
        alike = place == 0 or signature.kind == "rows"  # which a gateway does not pad
        lengths = {axis: bound if alike else int(dice.integers(1, bound + 1)) for axis, bound in bounds.items()}
        yield draw(contract, signature, lengths, dice)
    yield draw(contract, signature, bounds if signature.kind == "rows" else dict.fromkeys(bounds, 1), dice)


def _alone(cpu: Server, version: Version, signature: Signature, row: Row) -> dict[str, np.ndarray]:
    """What the CPU says of one row by itself, unpadded."""
    return own(signature, cpu.predict(version, signature.name, batch(signature, [row], row.lengths)), 0, row)


def _compare(
    server: Server, signature: Signature, rows: Sequence[Row], expected: Sequence[Mapping[str, np.ndarray]], size: int,
    found: Found, seconds: float,
) -> None:  # fmt: skip
    """One batch size: a batch three quarters full, the rest filler; then as many as fit into `seconds`."""
    real = max(1, size * 3 // 4)
    places = [place % _ROWS for place in range(real)] + [_ROWS] * (size - real)
    inputs = batch(signature, [rows[place] for place in places], found.bounds)
    try:
        outputs = server.predict(found.version, signature.name, inputs)
        found.differences[size] = max(
            difference(own(signature, outputs, at, rows[place]), expected[place]) for at, place in enumerate(places)
        )
        found.batch_s[size] = _timed(server, found.version, signature.name, inputs, seconds)
    except Refused as refused:
        found.refused[size] = str(refused)


def _timed(server: Server, version: Version, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> float:
    """Seconds of one batch, the median of as many as fit; of one at least."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        began = time.perf_counter()
        server.predict(version, signature, inputs)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def allowed(batch_s: Mapping[int, float]) -> list[int]:
    """The batch sizes that are worth allowing, from seconds by size.

    The largest is the first that nearly reaches the most rows a second. A smaller one is kept where its rows would wait
    noticeably longer if they were filled up to the next that is kept.
    """
    if not batch_s:
        return []
    most = max(size / taken for size, taken in batch_s.items())
    kept = [min(size for size, taken in batch_s.items() if size / taken >= _NEARLY * most)]
    for size in sorted((size for size in batch_s if size < kept[0]), reverse=True):
        if batch_s[kept[0]] >= _WORTH * batch_s[size]:
            kept.insert(0, size)
    return kept


def allowed_by_all(found: Sequence[Found], tolerance: float) -> list[int]:
    """The sizes that one of the signatures wants, of those at which all of them answer as the CPU does."""
    wrong = {size for each in found for size in each.wrong(tolerance)}
    right = [{size: taken for size, taken in each.batch_s.items() if size not in wrong} for each in found]
    return sorted({size for each in right for size in allowed(each)})
