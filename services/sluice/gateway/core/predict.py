"""Predictions: a request's tensors in, rows batched with other clients', outputs back.

It knows which model versions there are and how their signatures batch; it does not know HTTP, gRPC or JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.buckets import BucketTable
from sluice.gateway.core.engine import Engine
from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.batch import Lane, Ticket, row_bytes, rows_like
from sluice.policy.contract import Signature, fits
from sluice.policy.errors import (
    BackendError,
    BadRequest,
    BatchTooLarge,
    EmptyInput,
    ShapeMismatch,
    UnsupportedByModel,
)
from sluice.policy.scanning import DEFAULT_CHUNK, Tell, scanned
from sluice.policy.sequences import Columns, Grouped, check_rows, grouped, lane_of, lengths_of, rows_of, stacked
from sluice.policy.tensors import counted

Array = NDArray[Any]

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The version that answered, and its outputs by name: arrays, or a list of arrays where rows differ in length."""

    version: int
    outputs: Mapping[str, Array | list[Array]]

    @property
    def arrays(self) -> dict[str, Array]:
        """The outputs for those who have arrays only: rows that differ in length are filled up with zeros or ""."""
        return {name: _filled(rows) if isinstance(rows, list) else rows for name, rows in self.outputs.items()}


class Predict(NamedTuple):
    """What is asked of one signature, as `ServedVersion.predicted` gives it; without `outputs` all of them are meant.

    `inputs`: name → array of the dtype that the signature takes, in whatever shape the client sent it; of sequences,
    arrays with their lengths or masks beside them, or a list with each row's array. `tell` hears of parts of an answer
    as soon as they are there, which takes a model whose sequences run in chunks.
    """

    signature: Signature
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...] = ()
    tell: Tell | None = None


class Predictions:
    """Carries out predict requests.

    `largest` is the largest batch that requests share, `rows_limit` the most rows of one request. Sequences that are a
    batch of their own are padded to `padded_bytes` at most, or to what the largest batch may have.
    """

    def __init__(self, engine: Engine, buckets: BucketTable, largest: int, rows_limit: int, padded_bytes: int) -> None:
        self.rows_limit = rows_limit
        self._padded_bytes = padded_bytes
        self._buckets = buckets
        self._engine = engine
        self._largest = largest

    def submit(self, served: ServedVersion, asked: Predict, terms: Terms, pending: Pending) -> None:
        """Run a request on a version; its outcome is a `Prediction`.

        Raises:
            SluiceError: it is refused.
        """
        tickets, joined = self._planned(served, asked, terms)
        for ticket in tickets:
            ticket.priority_s = terms.priority_s
        self._engine.submit_all(tickets, pending.then(joined))

    def chunk(self, served: ServedVersion, signature: Signature) -> int:
        """In how many time steps at a time a signature's sequences run now; 0: they run whole."""
        if signature.scanning is None:
            return 0
        of = partial(self._engine.scheduler.cost, served.model, served.version)
        return self._buckets.of(served, signature).chunk(of(signature.scanning.signature.name), of(signature.name))

    def _planned(
        self, served: ServedVersion, asked: Predict, terms: Terms
    ) -> tuple[Sequence[Ticket], Callable[[Sequence[Inputs]], Prediction]]:
        """The tickets of a request, and what makes one answer of theirs."""
        signature = asked.signature
        check_wanted(asked.outputs, signature)
        if asked.tell and not signature.scanning:
            raise UnsupportedByModel(
                f"Model {served.model!r} does not give the answer to its signature {signature.name!r} in parts: its "
                "contract names no scan for it. Ask without Accept: text/event-stream."
            )
        if signature.kind == "sequences":
            found = self._together(served, asked, terms) if terms.exact else self._grouped(served, asked, terms)
            return found.tickets, lambda outcomes: Prediction(served.version, found.joined(outcomes))
        tickets = self._tickets(served, asked, terms)
        return tickets, partial(_joined, served, tickets)

    def _grouped(self, served: ServedVersion, asked: Predict, terms: Terms) -> Grouped:
        """Sequences by bucket, or row by row where they run in chunks."""
        signature, columns, deadline = asked.signature, self._columns(asked), terms.deadline
        lane = terms.lane(Lane(served.model, served.version, signature.name, outputs=asked.outputs))
        buckets = self._buckets.of(served, signature)
        chunk = self.chunk(served, signature)
        if chunk or asked.tell:
            found = scanned(lane, signature, columns, buckets.bounds_for, chunk or DEFAULT_CHUNK, deadline, asked.tell)
        else:
            largest = terms.part(self._largest, self.rows_limit)
            found = grouped(lane, signature, columns, buckets.bounds_for, largest, deadline)
        buckets.observe(found.lengths)
        return found

    def _together(self, served: ServedVersion, asked: Predict, terms: Terms) -> Grouped:
        """Sequences in a batch of their own, whole. They teach the buckets nothing, which are not theirs."""
        signature, columns = asked.signature, self._columns(asked)
        if asked.tell:
            raise BadRequest(
                "Sluice-Batch: exact runs sequences whole, and gives no parts of the answer. Ask without it, or "
                "without Accept: text/event-stream."
            )
        buckets, lengths = self._buckets.of(served, signature), lengths_of(signature, columns)
        lane = terms.lane(Lane(served.model, served.version, signature.name, outputs=asked.outputs))
        bounds = buckets.bounds_together(lengths)
        largest_bytes = self._largest * row_bytes(lane_of(lane, signature, buckets.last_bounds))
        limit = max(largest_bytes, self._padded_bytes) // row_bytes(lane_of(lane, signature, bounds))
        if len(lengths) > limit:
            raise BatchTooLarge(
                f"A batch of sequences may have {limit} rows where the longest row needs {list(bounds)}, to which all "
                f"are padded; {len(lengths)} came with Sluice-Batch: exact. Send fewer at once, or raise body_bytes.",
                limit=limit,
            )
        return grouped(lane, signature, columns, lambda _: bounds, self.rows_limit, terms.deadline)

    def _columns(self, asked: Predict) -> Columns:
        """Each row's own arrays."""
        given = asked.inputs
        ragged = any(isinstance(column, list) for column in given.values())
        return given if ragged else rows_of(asked.signature, given, self.rows_limit)

    def _tickets(self, served: ServedVersion, asked: Predict, terms: Terms) -> list[Ticket]:
        """A request as rows that can be batched, in parts where it has more than a batch; or as it is."""
        signature, inputs = asked.signature, asked.inputs
        rows, axis = _rows(signature, inputs), signature.batch_axis
        if rows == 0:
            check_shapes(served.model, signature, {name: array.shape for name, array in inputs.items()})
            if axis == "promised":
                counts = {name: len(array) for name, array in inputs.items()}
                raise ShapeMismatch(f"All inputs of a request have the same number of rows; {counted(counts)}.")
        deadline = terms.deadline
        lane = terms.lane(Lane(served.model, served.version, signature.name, rows_like(inputs), asked.outputs))
        if rows == 0:
            return [Ticket(lane._replace(rows_like=(), batch_axis="none"), inputs, 1, deadline)]
        check_rows(rows, self.rows_limit)
        lane, largest = lane._replace(batch_axis=axis), terms.part(self._largest, self.rows_limit)
        parts = [slice(start, min(start + largest, rows)) for start in range(0, rows, largest)]
        return [
            Ticket(lane, {name: array[part] for name, array in inputs.items()}, part.stop - part.start, deadline)
            for part in parts
        ]


def _filled(rows: list[Array]) -> Array:
    dtype = rows[0].dtype
    return stacked(rows, b"" if dtype.hasobject else 0, dtype)


def check_wanted(wanted: Sequence[str] | None, signature: Signature) -> None:
    """Raises: BadRequest for an output that the signature does not have."""
    unknown = [name for name in wanted or () if name not in signature.outputs]
    if unknown:
        raise BadRequest(
            f"There is no output {', '.join(map(repr, unknown))}; "
            f"this call gives {', '.join(map(repr, signature.outputs))}."
        )


def _rows(signature: Signature, inputs: Inputs) -> int:
    """How many rows inputs have along the batch axis; 0: they have none, or are not as the signature says."""
    if signature.batch_axis == "none":
        return 0
    counts: set[tuple[int, ...]] = {array.shape[:1] for array in inputs.values()}
    alike = len(counts) == 1 and all(fits(array.shape, signature.inputs[name].shape) for name, array in inputs.items())
    return next(iter(counts))[0] if alike else 0


def check_shapes(model: str, signature: Signature, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse what can end a model server, whether the signature is a contract's or not.

    TensorFlow aborts over a tensor of another rank than an operation was built for, and a server that batches waits for
    ever over no rows. An input whose rank is not known may have any shape, and a list of one value stands for a scalar.

    Raises:
        EmptyInput: no input has a row.
        ShapeMismatch: one has another rank or another size of a fixed axis.
    """
    if shapes and all(tuple(shape[:1]) == (0,) for shape in shapes.values()):
        raise EmptyInput(f"A request to model {model!r} needs one row or more; got none.")
    for name, shape in shapes.items():
        tensor = signature.inputs.get(name)
        if tensor is None or not tensor.ranked or fits(shape, tensor.shape):
            continue
        if tensor.shape or tuple(shape) != (1,):
            raise ShapeMismatch(
                f"Input {name!r} takes {tensor}; a value of shape {list(shape)} came.",
                expected=list(tensor.shape), got=list(shape),
            )  # fmt: skip


def _joined(served: ServedVersion, tickets: Sequence[Ticket], outcomes: Sequence[Inputs]) -> Prediction:
    """The answer of a request from those of its parts."""
    if len(outcomes) == 1:
        return Prediction(served.version, outcomes[0])
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if any(array.shape[:1] != (ticket.rows,) for array in outcome.values()):
            raise BackendError(
                f"Model {served.model!r} answers signature {ticket.lane.signature!r} with outputs that have not a row "
                "for each row, so that a request with more rows than a batch cannot be put together. Send fewer rows."
            )
    return Prediction(
        served.version, {name: np.concatenate([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    )
