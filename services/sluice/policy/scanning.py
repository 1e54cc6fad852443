"""Decides how sequences run in chunks: which chunk a row runs next, what of its answer it gives, how long chunks are.

It does not know who shares a chunk's batch. The answer is that of the whole sequence, as the state goes from chunk to
chunk.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Lane, Rows, Stage, Ticket
from sluice.policy.contract import Signature, fits, numpy_dtype
from sluice.policy.cost import RunCost
from sluice.policy.errors import BackendError
from sluice.policy.sequences import BoundsFor, Columns, Grouped, lengths_of
from sluice.policy.slab import state_rows
from sluice.policy.tensors import initial_row

Array = NDArray[Any]

DEFAULT_CHUNK = 32  # time steps, where neither the contract nor the costs say anything
_LEAST_CHUNK = 8
_WORTH = 2  # chunks that the longest sequence has, or it may as well run whole
_OVERHEAD = 0.1  # of a chunk's run: the fixed cost that is paid for every chunk, but only once for a whole sequence
_SIZES = 4  # bounds of last chunks, each a quarter of a chunk more


class Part(NamedTuple):
    """What one chunk gives of a row's answer: of outputs along time the steps from `start`, of others the last one's.

    outputs: name → the row's array, without batch axis.
    """

    row: int
    start: int
    outputs: Rows


Tell = Callable[[Part], None]


class ChunkLength:
    """How many time steps of a model's sequences run at a time, as runs cost.

    A chunk's run costs what a run costs at least, besides its elements (`RunCost`). Chunks are so long that this is a
    tenth of the run, with as many rows as batches have of late: the shorter they are, the sooner a short sequence's
    turn comes. They are powers of two, and stay until what would be right is out of reach of them.
    """

    def __init__(self, given: int | None = None) -> None:
        """`given`: so many time steps, whatever runs cost; 0: sequences always run whole."""
        self._given = given
        self._chosen = 0
        self._fits = 0, 0

    def of(self, in_chunks: RunCost, whole: RunCost, longest: Callable[[], int]) -> int:
        """Time steps of a chunk; 0: sequences run whole. `longest` tells the longest sequence of late.

        What runs in chunks or whole cost decides, whichever sequences do now, or of which anything is known.
        """
        if self._given is not None:
            return self._given
        fits = in_chunks.fits, whole.fits
        if fits != self._fits:
            self._fits = fits
            now = in_chunks if (self._chosen and in_chunks.known) or not whole.known else whole
            self._chosen = self._right(now, longest())
        return self._chosen

    def _right(self, cost: RunCost, longest: int) -> int:
        work_s = _OVERHEAD * (cost.step_s + cost.element_s * cost.rows)
        right = cost.fixed_s / work_s if work_s else inf
        if self._chosen / 4 < right <= self._chosen:
            chunk = self._chosen
        elif right < longest:
            chunk = max(_LEAST_CHUNK, 1 << (max(int(right), 1) - 1).bit_length())
        else:
            return 0
        return chunk if _WORTH * chunk <= longest else 0


def scanned(
    lane: Lane, signature: Signature, columns: Columns, bounds_for: BoundsFor, chunk: int, deadline: float,
    tell: Tell | None = None,
) -> Grouped:  # fmt: skip
    """A request's rows in tickets, one for each row, which runs chunk by chunk of `chunk` time steps at most.

    `lane` says what else the rows share. `tell` hears of each part of an answer as soon as it is there; then the answer
    itself is empty.

    Raises:
        ShapeMismatch, EmptyInput: as `lengths_of`; besides all that `bounds_for` raises, for rows that are too long.
    """
    assert signature.scanning is not None
    lengths = lengths_of(signature, columns)
    for own in lengths:
        bounds_for(own)
    form = _form(lane, signature, signature.scanning.signature, chunk)
    tickets = []
    for row, (length,) in enumerate(lengths):
        course = _Course(form, row, {name: column[row] for name, column in columns.items()}, length, tell)
        stage = course.stage()
        tickets.append(Ticket(stage.lane, stage.inputs, stage.rows, deadline, stage.elements, course))
    return Grouped(signature, lengths, tickets, [[row] for row in range(len(lengths))])


def padded_chunk(steps: int, chunk: int) -> int:
    """How far so many time steps, a chunk or the last ones of a row, are padded."""
    size = max(1, chunk // _SIZES)
    return min(chunk, max(1, -(-steps // size)) * size)


@dataclass(frozen=True, slots=True)
class _Form:
    """What all rows of a request share: how the scan is called, and how the answer differs from the scan's."""

    lane: Lane
    whole: Signature
    scan: Signature
    chunk: int
    initial: Mapping[str, Array]  # by input, `[1, ...]`

    def bound(self, steps: int) -> int:
        return padded_chunk(steps, self.chunk)

    def lane_of(self, bound: int) -> Lane:
        takes = [
            (name, numpy_dtype(tensor.dtype), (bound, *(axis.size or 0 for axis in tensor.axes[2:])))
            for name, tensor in self.scan.inputs.items()
        ]
        states = [(state.input, numpy_dtype(state.dtype), state.shape) for state in self.scan.states]
        lengths = (self.scan.lengths or "", np.dtype(np.int32), ())
        pads = tuple((name, self.whole.inputs[name].pad) for name in self.scan.inputs)
        return self.lane._replace(rows_like=(*takes, *states, lengths), bounds=(bound,), pads=pads)


def _form(lane: Lane, whole: Signature, scan: Signature, chunk: int) -> _Form:
    outputs = (*lane.outputs, *(state.output for state in scan.states)) if lane.outputs else ()
    initial = {
        state.input: initial_row(state.initial, state.shape, state.dtype)[np.newaxis].copy() for state in scan.states
    }
    return _Form(lane._replace(signature=scan.name, outputs=outputs), whole, scan, chunk, initial)


class _Course:
    """One row on its way, chunk by chunk; `row` holds its inputs without batch axis."""

    def __init__(self, form: _Form, number: int, row: Rows, length: int, tell: Tell | None) -> None:
        self._form = form
        self._number = number
        self._row = row
        self._length = length
        self._tell = tell
        self._start = 0
        self._states = form.initial
        self._parts: dict[str, list[Array]] = {}

    def stage(self) -> Stage:
        steps = self._steps
        inputs = {name: self._chunk(name, steps) for name in self._form.scan.inputs}
        inputs |= {**self._states, self._form.scan.lengths or "": np.array([steps], np.int32)}
        return Stage(self._form.lane_of(self._form.bound(steps)), inputs, 1, steps)

    def advance(self, outputs: Rows) -> Stage | Mapping[str, Array]:
        """The next chunk, or the outputs of the whole row, `[1, ...]`; none where its parts were told.

        Raises:
            BackendError: the outputs are not as the scan's signature says.
        """
        self._states = state_rows(self._form.scan.states, outputs)
        steps, start = self._steps, self._start
        ended = start + steps == self._length
        part = self._part(outputs, steps, ended=ended)
        if self._tell is None:
            for name, array in part.items():
                self._parts.setdefault(name, []).append(array)
        elif part:
            self._tell(Part(self._number, start, {name: array[0] for name, array in part.items()}))
        self._start = start + steps
        return self._answer() if ended else self.stage()

    @property
    def _steps(self) -> int:
        """Of the chunk that comes, or runs."""
        return min(self._form.chunk, self._length - self._start)

    def _chunk(self, name: str, steps: int) -> Array:
        """An input's steps, `[1, steps, ...]`; one that belongs to the row is given at each of them."""
        values = self._row[name]
        if self._form.whole.inputs[name].has_time:
            return values[np.newaxis, self._start : self._start + steps]
        return np.repeat(values[np.newaxis, np.newaxis], steps, axis=1)

    def _part(self, outputs: Rows, steps: int, *, ended: bool) -> dict[str, Array]:
        """What a chunk gives, copied, so that keeping it does not keep the batch."""
        found = {}
        for name, tensor in self._form.whole.outputs.items():
            if self._form.lane.outputs and name not in self._form.lane.outputs:
                continue
            promised, array = self._form.scan.outputs[name], outputs.get(name)
            wanted, stepwise = promised.shape_of(1, None), promised.has_time
            if array is None or not fits(array.shape, wanted) or (stepwise and array.shape[1] < steps):
                self._refuse(name, steps, array)
            elif tensor.has_time:
                found[name] = array[:, :steps].copy()
            elif ended:
                found[name] = (array[:, max(steps - 1, 0)] if stepwise else array).copy()
        return found

    def _refuse(self, name: str, steps: int, array: Array | None) -> None:
        came = "none" if array is None else list(array.shape)
        raise BackendError(
            f"The model must answer {name!r} of a chunk of {steps} time steps as its contract says, "
            f"{self._form.scan.outputs[name]}; {came} came."
        )

    def _answer(self) -> dict[str, Array]:
        return {
            name: np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0] for name, parts in self._parts.items()
        }
