"""Predictions: a request's tensors in, rows batched with other clients', outputs back.

It knows which model versions there are and how their signatures batch; it does not know HTTP, gRPC or JSON.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from sluice.gateway.core.buckets import BucketTable
from sluice.gateway.core.engine import Engine, complete
from sluice.gateway.upstream.catalog import Catalog, ServedVersion
from sluice.policy.batch import PRIORITIES, Lane, Ticket, rows_like
from sluice.policy.contract import Signature, fits
from sluice.policy.errors import (
    BackendError,
    BadRequest,
    DeadlineExceeded,
    EmptyInput,
    Internal,
    ShapeMismatch,
    SluiceError,
    UnsupportedByModel,
    VersionNotFound,
)
from sluice.policy.scanning import DEFAULT_CHUNK, Tell, scanned
from sluice.policy.sequences import Grouped, check_rows, grouped, rows_of, stacked

Array = NDArray[Any]
log = structlog.get_logger()

_BUG = "Something went wrong inside the gateway; it has been logged."

Inputs = Mapping[str, Array]


class Terms(NamedTuple):
    """Until when a request must be answered, in the engine's seconds, and its priority; see `PRIORITIES`."""

    deadline: float
    priority_s: float


class Predict(NamedTuple):
    """What is asked: without `version` and `label` of the newest version, without `outputs` for all of them.

    `read` gives a signature's inputs, name → array of the dtype that it takes, in whatever shape the client sent them;
    of sequences, arrays with their lengths or masks beside them, or a list with each row's array, and then of no more
    rows than it is told. `tell` hears of parts of an answer as soon as they are there, which takes a model whose
    sequences run in chunks.
    """

    model: str
    signature: str
    read: Callable[[Signature, int], Mapping[str, Any]]
    version: int | None = None
    label: str | None = None
    outputs: tuple[str, ...] = ()
    priority_s: float = PRIORITIES["normal"]
    tell: Tell | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The version that answered, and its outputs by name: arrays, or a list of arrays where rows differ in length."""

    version: int
    outputs: Mapping[str, Array | list[Array]]

    @property
    def arrays(self) -> dict[str, Array]:
        """The outputs for those who have arrays only: rows that differ in length are filled up with zeros or ""."""
        return {name: _filled(rows) if isinstance(rows, list) else rows for name, rows in self.outputs.items()}


Outcome = Prediction | SluiceError
Done = Callable[[Any], None]  # gets an answer, or a `SluiceError`
Cancel = Callable[[], None]


class ModelSpec(NamedTuple):
    """A model version as a request names it: without number and label the newest."""

    model: str
    version: int | None = None
    label: str | None = None


class Tasks:
    """Requests that may have to wait for more than a batch, each in a task of its own."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, Any], done: Done) -> Cancel:
        """Begin `work`; what it returns cancels it. `done` is called once, unless it is cancelled."""
        task = asyncio.get_running_loop().create_task(self._run(work, done))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _run(self, work: Coroutine[Any, Any, Any], done: Done) -> None:
        try:
            outcome = await work
        except SluiceError as error:
            outcome = error
        except Exception:
            log.exception("request failed")
            outcome = Internal(_BUG)
        try:
            done(outcome)
        except Exception:
            log.exception("an answer could not be given")
            done(Internal(_BUG))


class Predictions:
    """Carries out predict requests. `largest` is the largest batch, `rows_limit` the most rows of one request."""

    def __init__(self, catalog: Catalog, engine: Engine, buckets: BucketTable, largest: int, rows_limit: int) -> None:
        self._buckets = buckets
        self._catalog = catalog
        self._engine = engine
        self._largest = largest
        self._rows_limit = rows_limit
        self._tasks = Tasks()

    def begin(self, asked: Predict, deadline: float, done: Done) -> Cancel:
        """Begin a request; what it returns cancels it. `done` is called from the loop, once, unless it is cancelled.

        Raises:
            SluiceError: it is refused.
        """
        which = ModelSpec(asked.model, asked.version, asked.label)
        return self.on_version(which, deadline, lambda served, done: self.submit(served, asked, deadline, done), done)

    def on_version(self, which: ModelSpec, deadline: float, run: "Run", done: Done) -> Cancel:
        """Have `run` begin something on a model version; once more if its version goes and any would do.

        What it returns cancels it. `done` is called from the loop, once, unless it is cancelled.

        Raises:
            SluiceError: `run` refuses it.
        """
        return _Begun(self, which, deadline, run, done).begin(self._catalog.at_hand(*which))

    async def run(self, asked: Predict, deadline: float) -> Prediction:
        """As `begin`, awaited.

        Raises:
            SluiceError: it is refused, or failed.
        """
        found: Prediction = await awaited(partial(self.begin, asked, deadline))
        return found

    def submit(self, served: ServedVersion, asked: Predict, deadline: float, done: Done) -> Cancel:
        """Run a request on a version; otherwise as `begin`."""
        tickets, joined = self._planned(served, asked, deadline)
        for ticket in tickets:
            ticket.priority_s = asked.priority_s

        def settled(outcome: Sequence[Inputs] | SluiceError) -> None:
            done(outcome if isinstance(outcome, SluiceError) else joined(outcome))

        return self._engine.submit_parts(tickets, settled)

    def later(self, which: ModelSpec, deadline: float, run: "Run", done: Done) -> Cancel:
        """As `on_version`, when the model server has to be asked about the model first."""

        async def find_and_run() -> Any:
            served = await self.find(*which, deadline)
            return await awaited(partial(run, served))

        return self._tasks.begin(find_and_run(), done)

    def chunk(self, served: ServedVersion, signature: Signature) -> int:
        """In how many time steps at a time a signature's sequences run now; 0: they run whole."""
        if signature.scanning is None:
            return 0
        of = partial(self._engine.scheduler.cost, served.model, served.version)
        return self._buckets.of(served, signature).chunk(of(signature.scanning.signature.name), of(signature.name))

    async def find(self, model: str, version: int | None, label: str | None, deadline: float) -> ServedVersion:
        """As `Catalog.find`, which may have to ask the model server; in time.

        Raises:
            ModelNotFound, VersionNotFound, BackendUnavailable, DeadlineExceeded.
        """
        try:
            async with asyncio.timeout_at(deadline):
                if label is not None:
                    version = await self._catalog.labelled(model, label)
                return await self._catalog.find(model, version)
        except TimeoutError:
            raise DeadlineExceeded(f"The model server did not say in time whether it serves model {model!r}.") from None

    def _planned(
        self, served: ServedVersion, asked: Predict, deadline: float
    ) -> tuple[Sequence[Ticket], Callable[[Sequence[Inputs]], Outcome]]:
        """The tickets of a request, and what makes one answer of theirs."""
        signature = served.predicted(asked.signature)
        check_wanted(asked.outputs, signature)
        if asked.tell and not signature.scanning:
            raise UnsupportedByModel(
                f"Model {served.model!r} does not give the answer to its signature {signature.name!r} in parts: its "
                "contract names no scan for it. Ask without Accept: text/event-stream."
            )
        if signature.kind == "sequences":
            found = self._grouped(served, signature, asked, deadline)
            return found.tickets, partial(_joined_sequences, served, found)
        tickets = self._tickets(served, signature, asked, deadline)
        return tickets, partial(_joined, served, tickets)

    def _grouped(self, served: ServedVersion, signature: Signature, asked: Predict, deadline: float) -> Grouped:
        """Sequences by bucket, or row by row where they run in chunks."""
        given = asked.read(signature, self._rows_limit)
        ragged = any(isinstance(column, list) for column in given.values())
        columns = given if ragged else rows_of(signature, given, self._rows_limit)
        lane = Lane(served.model, served.version, signature.name, outputs=asked.outputs)
        buckets = self._buckets.of(served, signature)
        chunk = self.chunk(served, signature)
        if chunk or asked.tell:
            found = scanned(lane, signature, columns, buckets.bounds_for, chunk or DEFAULT_CHUNK, deadline, asked.tell)
        else:
            found = grouped(lane, signature, columns, buckets.bounds_for, self._largest, deadline)
        buckets.observe(found.lengths)
        return found

    def _tickets(self, served: ServedVersion, signature: Signature, asked: Predict, deadline: float) -> list[Ticket]:
        """A request as rows that can be batched, in parts where it has more than a batch; or as it is."""
        inputs = asked.read(signature, self._rows_limit)
        rows, axis = _rows(signature, inputs), signature.batch_axis
        if rows == 0 and axis == "promised":
            _refuse_rows(served, signature, inputs)
        lane = Lane(served.model, served.version, signature.name, rows_like(inputs), asked.outputs)
        if rows == 0:
            return [Ticket(lane._replace(rows_like=(), batch_axis="none"), inputs, 1, deadline)]
        check_rows(rows, self._rows_limit)
        lane, largest = lane._replace(batch_axis=axis), self._largest
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
            f"this model has {', '.join(map(repr, signature.outputs))}."
        )


Run = Callable[[ServedVersion, Done], Cancel]


class _Begun:
    """A request that may begin anew once: who asked for the newest version gets the one that replaced it."""

    def __init__(self, predictions: Predictions, which: ModelSpec, deadline: float, run: Run, done: Done) -> None:
        self._predictions = predictions
        self._which = which
        self._deadline = deadline
        self._run = run
        self._done = done
        self._cancel: Cancel = lambda: None

    def begin(self, served: ServedVersion | None) -> Cancel:
        if served is None:
            self._later()
        else:
            self._cancel = self._run(served, self._settled)
        return self._cancel_now

    def _cancel_now(self) -> None:
        self._cancel()

    def _later(self) -> None:
        self._cancel = self._predictions.later(self._which, self._deadline, self._run, self._done)

    def _settled(self, outcome: Any) -> None:
        if isinstance(outcome, VersionNotFound) and self._which.version is None:
            self._later()
        else:
            self._done(outcome)


def _rows(signature: Signature, inputs: Inputs) -> int:
    """How many rows inputs have along the batch axis; 0: they have none, or are not as the signature says."""
    if signature.batch_axis == "none":
        return 0
    counts: set[tuple[int, ...]] = {array.shape[:1] for array in inputs.values()}
    alike = len(counts) == 1 and all(fits(array, signature.inputs[name].shape) for name, array in inputs.items())
    return next(iter(counts))[0] if alike else 0


def _refuse_rows(served: ServedVersion, signature: Signature, inputs: Inputs) -> None:
    """Raises: ShapeMismatch, EmptyInput: what is wrong with the inputs of a signature that promises a batch axis."""
    for name, array in inputs.items():
        tensor = signature.inputs[name]
        if not fits(array, tensor.shape) and array.shape[:1] != (0,):
            raise ShapeMismatch(
                f"Input {name!r} takes {tensor}; a value of shape {list(array.shape)} came.",
                expected=list(tensor.shape), got=list(array.shape),
            )  # fmt: skip
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise ShapeMismatch(f"All inputs of a request have the same number of rows; got {counts}.")
    raise EmptyInput(f"A request to model {served.model!r} needs one row or more; got none.")


def _joined(served: ServedVersion, tickets: Sequence[Ticket], outcomes: Sequence[Inputs]) -> Outcome:
    """The answer of a request from those of its parts."""
    if len(outcomes) == 1:
        return Prediction(served.version, outcomes[0])
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if any(array.shape[:1] != (ticket.rows,) for array in outcome.values()):
            return BackendError(
                f"Model {served.model!r} answers signature {ticket.lane.signature!r} with outputs that have not a row "
                "for each row, so that a request with more rows than a batch cannot be put together. Send fewer rows."
            )
    return Prediction(
        served.version, {name: np.concatenate([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    )


def _joined_sequences(served: ServedVersion, found: Grouped, outcomes: Sequence[Inputs]) -> Outcome:
    try:
        return Prediction(served.version, found.joined(outcomes))
    except BackendError as error:
        return error


async def awaited(begin: Callable[[Done], Cancel]) -> Any:
    """What a call gives to its `done`, once it does; a call whose task is cancelled is cancelled, too.

    Raises:
        SluiceError: what it gives, or why it is refused.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    cancel = begin(partial(complete, future))
    try:
        return await future
    except asyncio.CancelledError:
        cancel()
        raise
