"""The store of states: where those of one model version's sessions lie in memory, and when it is given back.

It does not know sessions, only slots; nor how a model is called.
"""

import heapq
import mmap
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Rows
from sluice.policy.contract import Signature, State, numpy_dtype
from sluice.policy.errors import BackendError
from sluice.policy.tensors import initial_row

Array = NDArray[Any]

# Slots whose memory is given back together: a multiple of the page size in bytes, however small a row is.
BLOCK = max(4096, mmap.PAGESIZE)


class Slab:
    """The states, and last answers, of all sessions on one model version: one array `[slots, ...]` per tensor.

    Memory is taken page by page when a slot is first used, and given back when all slots of a block are free.

    states: state name → array. answers: output name of the step signature → array, or None if its outputs cannot be
    kept so, because they are text or have an axis of no fixed size.
    """

    def __init__(self, model: str, version: int, signature: Signature, slots: int) -> None:
        self.model = model
        self.version = version
        self._mapped: list[tuple[mmap.mmap, int]] = []  # with bytes per slot
        self.states = {state.name: self._zeros(slots, state.shape, state.dtype) for state in signature.states}
        self.answers = self._answers(signature, slots)
        self.row_bytes = sum(array[:1].nbytes for array in self.states.values())
        self._initial = {state.name: initial_row(state.initial, state.shape, state.dtype) for state in signature.states}
        self._free: list[int] = []  # a heap: the lowest first, so that what is used lies close together
        self._fresh = 0  # this slot and those behind it were never used
        self._used: Counter[int] = Counter()  # slots in use, by block

    def occupy(self, rows: Rows) -> int:
        """Take a slot and write its first state: `rows` by state name, the contract's initial values for the rest."""
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            slot, self._fresh = self._fresh, self._fresh + 1
        self._used[slot // BLOCK] += 1
        self.write(slot, self._initial | dict(rows))
        return slot

    def vacate(self, slot: int) -> None:
        heapq.heappush(self._free, slot)
        block = slot // BLOCK
        self._used[block] -= 1
        if not self._used[block]:
            for memory, row_bytes in self._mapped:
                _give_back(memory, block * BLOCK * row_bytes, BLOCK * row_bytes)

    def read(self, slot: int) -> dict[str, Array]:
        """The state of one slot, state name → row; a copy."""
        return {name: np.array(array[slot]) for name, array in self.states.items()}

    def write(self, slot: int, rows: Rows) -> None:
        """Replace the state of one slot, state name → row; what is left out stays."""
        for name, row in rows.items():
            self.states[name][slot] = row

    def gather(self, states: Sequence[State], slots: Sequence[int]) -> dict[str, Array]:
        """The states of `slots` as a signature's inputs, input name → `[len(slots), ...]`."""
        return {state.input: self.states[state.name][slots] for state in states}

    def move(self, signature: Signature, slots: Sequence[int], rows: Sequence[int], outputs: Rows) -> bool:
        """Write rows `rows` (increasing) of a signature's outputs as the states of `slots`, and as their last answers.

        Returns:
            Whether the answers are kept here: those of a step, if they can be.
        """
        answers = self.answers if signature.kind == "step" else None
        if rows:
            source = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] < len(rows) else rows
            for state in signature.states:
                self.states[state.name][slots] = outputs[state.output][source]
            for name, array in (answers or {}).items():
                array[slots] = outputs[name][source]
        return answers is not None

    def _answers(self, signature: Signature, slots: int) -> Mapping[str, Array] | None:
        rows = {name: tensor.row() for name, tensor in signature.outputs.items()}
        if any(None in row.shape or row.dtype == "string" for row in rows.values()):
            return None
        return {name: self._zeros(slots, row.shape, row.dtype) for name, row in rows.items()}

    def _zeros(self, slots: int, shape: Sequence[int | None], dtype_name: str) -> Array:
        dtype = numpy_dtype(dtype_name)
        sizes = [size or 0 for size in shape]
        row_bytes = prod(sizes) * dtype.itemsize
        if dtype.hasobject or not row_bytes:
            return np.zeros((slots, *sizes), dtype)
        memory = mmap.mmap(-1, slots * row_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mapped.append((memory, row_bytes))
        return np.frombuffer(memory, dtype).reshape((slots, *sizes))


def state_rows(states: Sequence[State], outputs: Rows) -> dict[str, Array]:
    """The next states of rows, by the inputs that take them, from what the model answered to them.

    Raises:
        BackendError: one is missing, or not as the contract says.
    """
    found = {}
    for state in states:
        array = outputs.get(state.output)
        if array is None or array.shape[1:] != state.shape or array.dtype != numpy_dtype(state.dtype):
            came = "none" if array is None else f"{array.dtype} {list(array.shape[1:])}"
            raise BackendError(
                f"The model must answer the state {state.output!r} as {state.dtype} {list(state.shape)}; {came} came."
            )
        found[state.input] = array
    return found


def finite_rows(states: Sequence[State], outputs: Rows) -> Array:
    """Which rows of a batch's new states hold neither NaN nor infinity: bool `[batch]`."""
    news = [outputs[state.output] for state in states]
    checks = [np.isfinite(new.reshape(len(new), -1)).all(axis=1) for new in news if new.dtype.kind in "fcV"]
    finite: Array = np.logical_and.reduce([np.ones(len(news[0]), bool), *checks])
    return finite


def _give_back(memory: mmap.mmap, start: int, length: int) -> None:
    """Let the system have these pages again; they read as zeros from now on."""
    memory.madvise(mmap.MADV_DONTNEED, start, min(length, len(memory) - start))
