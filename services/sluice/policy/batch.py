"""What waits and what runs: lanes of rows of one form, tickets for a request's rows, batches.

Which rows make a batch, and when, `batching` decides; what rows mean, none of them knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import BatchAxis
from sluice.policy.errors import DeadlineExceeded, SluiceError

Array = NDArray[Any]
Rows = Mapping[str, Array]

# Seconds by which a request's deadline counts as nearer or farther when it is decided who runs first. As it is no
# more than that, requests of low priority are overtaken for so long at most, and then run.
PRIORITIES: Mapping[str, float] = {"high": -10.0, "normal": 0.0, "low": 10.0}


# Of the time beyond the first that a ticket of many runs has been on its way, its lead over those that come is a share.
_PATIENCE_S = 2.0
_LEAD = 1 / 8


class Lane(NamedTuple):
    """What rows must agree in to share a batch."""

    model: str
    version: int
    signature: str
    rows_like: tuple[tuple[str, Any, tuple[int, ...]], ...] = ()  # (input, numpy dtype, row shape)
    outputs: tuple[str, ...] = ()  # the outputs asked for; none: all of them
    time_bound: int | None = None  # rows are padded to this many time steps
    bounds: tuple[int, ...] = ()  # the bucket: rows are padded to these lengths, one for each ragged axis
    pads: tuple[tuple[str, Any], ...] = ()  # input → what fills the padding
    alone: int = 0  # tells apart the lanes of tickets that must run alone
    batch_axis: BatchAxis = "promised"
    exclusive: int = 0  # how often it has been tried while nothing else of the model runs; 0: others may
    exact: bool = False  # each ticket is a batch of its own, of exactly its rows
    low: bool = False  # of low priority: its rows yield to others'

    @property
    def shared(self) -> bool:
        """Whether its tickets share batches, which are filled up to an allowed size."""
        return not self.exact and self.batch_axis != "none"

    @property
    def elements(self) -> int:
        """How many elements a row has along its ragged axes when it is padded to the bucket's bounds."""
        return prod(self.bounds)

    def carries(self, other: "Lane") -> bool:
        """Whether rows of another bucket can be padded to the bounds of this one."""
        return (
            self.same_call == other.same_call
            and self.bounds != other.bounds
            and all(bound >= short for bound, short in zip(self.bounds, other.bounds, strict=True))
        )

    def fills(self, low: "Lane") -> bool:
        """Whether rows of low priority can take the place of filler in this one's batches."""
        other = low._replace(low=False)
        return self == other or self.carries(other)

    @property
    def same_call(self) -> tuple[Any, ...]:
        """What rows of different buckets must agree in to share a batch."""
        apart = self.alone, self.exact, self.low
        return self.model, self.version, self.signature, self.outputs, self.pads, len(self.bounds), apart


def rows_like(inputs: Rows) -> tuple[tuple[str, Any, tuple[int, ...]], ...]:
    """The form of rows, name → `[rows, ...]`, for `Lane`: only rows of one form can be stacked."""
    return tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])


def row_bytes(lane: Lane) -> int:
    """How many bytes a lane's row has, padded; those of texts, which are elsewhere, are not counted."""
    return sum(prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape in lane.rows_like)


def corners(shape: tuple[int, ...], pad: Any, dtype: np.dtype[Any], parts: Sequence[Array]) -> Array:
    """An array of `shape` with the parts, one behind the other, each in the corner of its rows; `pad` is elsewhere."""
    if len(parts) == 1 and parts[0].shape == shape:
        return parts[0]
    out, start = np.full(shape, pad, dtype), 0
    for part in parts:
        out[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = part
        start += len(part)
    return out


class Stage(NamedTuple):
    """What a ticket runs next, where it runs more than once; see `Ticket`."""

    lane: Lane
    inputs: Rows
    rows: int
    elements: int = 0


class Course(Protocol):
    """Leads a ticket from one run to the next."""

    def advance(self, outputs: Rows) -> Stage | Any:
        """The ticket has run and these are its outputs, `[rows, ...]`: what it runs next, or its outcome.

        Raises:
            SluiceError: it fails.
        """


class Ticket:
    """One request's rows: waiting, running, or settled with an outcome, which is given exactly once.

    inputs: name → `[rows, ...]`, one row or more, or of any shape where no axis is the batch. `deadline`, `began_at`,
    when it was taken on, and `queued_at`, since when it waits for this run (wherever that was), are in the caller's
    monotonic seconds. `reply` is the caller's own and never looked at here. `priority_s` is one of `PRIORITIES`.
    `elements` are those that its rows have along ragged axes, without padding; 0 where there are no such axes. One that
    has a `course` runs until that gives its outcome.
    """

    __slots__ = (
        "began_at",
        "course",
        "deadline",
        "elements",
        "inputs",
        "lane",
        "outcome",
        "priority_s",
        "queue",
        "queued_at",
        "reply",
        "rows",
    )

    def __init__(
        self, lane: Lane, inputs: Rows, rows: int, deadline: float, elements: int = 0, course: Course | None = None
    ) -> None:
        self.lane = lane
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.elements = elements
        self.course = course
        self.priority_s = 0.0
        self.began_at = self.queued_at = 0.0
        self.queue: Any = None  # where it waits
        self.outcome: Any = None
        self.reply: Any = None

    @property
    def urgency(self) -> float:
        """Tickets run in the order of this: their deadlines, as their priorities count them.

        Where it runs more than once, a further run counts as a request that has come only now: those of many take
        turns with who comes. Those that have been on their way for seconds gain a lead, and go first at last.
        """
        taken_s = self.queued_at - self.began_at
        return self.deadline + self.priority_s + taken_s - max(0.0, taken_s - _PATIENCE_S) * _LEAD

    @property
    def has_run(self) -> bool:
        """Whether it has run before, and waits for a further run."""
        return self.queued_at > self.began_at

    def turn_to(self, stage: Stage) -> None:
        """What it runs next. Who was overtaken for low priority has been so once."""
        self.lane, self.inputs, self.rows, self.elements = stage
        self.priority_s = min(self.priority_s, 0.0)
        self.queued_at = 0.0


@dataclass(slots=True, eq=False)
class Batch:
    """Rows that run together: `tickets` in order, `size` rows on the wire of which `rows` are real.

    waited_s: how long each ticket waited, in seconds. `real_elements` are the tickets' own.
    """

    lane: Lane
    tickets: list[Ticket]
    rows: int
    size: int
    started_at: float
    waited_s: list[float] = field(init=False)
    real_elements: int = field(init=False)

    def __post_init__(self) -> None:
        self.waited_s = [self.started_at - ticket.queued_at for ticket in self.tickets]
        self.real_elements = sum(ticket.elements for ticket in self.tickets) if self.lane.bounds else 0

    @property
    def elements(self) -> int:
        """All elements that run, filler and padding too, where rows are padded to a bucket."""
        return self.size * self.lane.elements

    def spans(self) -> Iterator[tuple[Ticket, slice]]:
        """Each ticket with the rows of the batch that are its own."""
        start = 0
        for ticket in self.tickets:
            span = slice(start, start + ticket.rows)
            start = span.stop
            yield ticket, span

    def stacked(self) -> dict[str, Array]:
        """The tickets' inputs, name → `[size, ...]`. Filler rows repeat the last real one, so that they are valid."""
        parts = {name: self._parts(name) for name in self.tickets[0].inputs}
        pads = dict(self.lane.pads)
        padded = {
            name: corners((self.size, *shape), pads[name], dtype, parts.pop(name))
            for name, dtype, shape in self.lane.rows_like
            if name in pads
        }
        return padded | {name: np.concatenate(each) if len(each) > 1 else each[0] for name, each in parts.items()}

    def _parts(self, name: str) -> list[Array]:
        parts = [ticket.inputs[name] for ticket in self.tickets]
        filler = self.size - self.rows
        if filler:
            parts.append(np.repeat(parts[-1][-1:], filler, axis=0))
        return parts


def too_late(ticket: Ticket, now: float) -> SluiceError:
    """The error of a ticket whose deadline has passed or cannot be met."""
    waited_ms = max(0, round((now - ticket.began_at) * 1000)) if ticket.began_at else 0
    return DeadlineExceeded(
        f"The answer of model {ticket.lane.model!r} did not come in time: {waited_ms} ms had passed when the deadline "
        "came or could no longer be met. Allow more with Sluice-Timeout-Ms, over gRPC with a later deadline, or send "
        "less at once."
    )
