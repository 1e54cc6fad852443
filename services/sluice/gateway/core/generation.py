"""Generation: encode each instance, then step its decoder until it ends, in batches with whoever else is there.

An instance's ticket runs once for each step, so instances join and leave the running batch between steps. It does
not know HTTP, gRPC or JSON; which token comes next is a rule.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import numpy as np

from sluice.gateway.core.backlog import Backlog
from sluice.gateway.core.buckets import BucketTable
from sluice.gateway.core.engine import Engine
from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.core.resolve import ModelSpec, Resolver
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.batch import Lane, Rows, Stage, Ticket, rows_like
from sluice.policy.contract import Generation, Signature
from sluice.policy.errors import BadRequest, BatchTooLarge, SluiceError, UnsupportedByModel
from sluice.policy.generation import Decoding, Limits, Options, Result, check_options
from sluice.policy.sequences import Columns, check_rows, grouped
from sluice.policy.slab import state_rows


@dataclass(frozen=True, slots=True)
class Generate:
    """What is asked: `read` gives the encoder's inputs, by name each row's array, of no more rows than it is told.

    `options` gets what the model says, to fill in what the client left out.
    """

    spec: ModelSpec
    read: Callable[[Signature, int], Columns]
    options: Callable[[Generation], Options]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an instance is certain; `step` counts from 0."""

    index: int
    step: int
    token: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An instance is done: its sequences, the best first, or why there are none."""

    index: int
    outcome: list[Result] | SluiceError


Event = Token | Ended


def failure_of(event: Event) -> SluiceError | None:
    """The error that an instance has ended with, if it has."""
    return event.outcome if isinstance(event, Ended) and isinstance(event.outcome, SluiceError) else None


@dataclass(frozen=True, slots=True)
class Begun:
    """A generation that runs: its events come in order, one `Ended` for each instance."""

    served: ServedVersion
    generation: Generation
    instances: int
    events: AsyncGenerator[Event]


class Watcher(Protocol):
    """Hears of instances."""

    def generating(self, model: str, change: int) -> None:
        """So many more are being generated."""

    def generated(self, model: str, version: int, outcome: str, steps: int) -> None:
        """One has ended, with `end`, `length`, an error's code or `client_gone`, after so many steps."""


class Generations:
    """Carries out generate requests. `largest` is the largest batch, `rows_limit` the most rows of one request."""

    def __init__(
        self, engine: Engine, resolver: Resolver, buckets: BucketTable, watcher: Watcher, limits: Limits,
        largest: int, rows_limit: int,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._resolver = resolver
        self._buckets = buckets
        self._watcher = watcher
        self._limits = limits
        self._largest = largest
        self._rows_limit = rows_limit

    async def begin(self, asked: Generate, terms: Terms) -> Begun:
        """Find the model, read the request and begin; leaving the events early withdraws what is not done.

        Raises:
            SluiceError: it is refused.
        """
        if terms.exact:
            raise BadRequest(
                "Sluice-Batch: exact is for calls that run once: what is generated joins and leaves the decoder's "
                "batches at every token. Leave it out."
            )
        served = await self._resolver.find(asked.spec, terms.deadline)
        generation = served.contract.generation if served.contract else None
        if generation is None:
            raise UnsupportedByModel(
                f"Model {served.model!r} version {served.version} does not generate: its contract says nothing of it. "
                f"It offers {', '.join(served.kinds)}."
            )
        options = asked.options(generation)
        check_options(options, generation, self._limits)
        if options.beam is not None and options.beam.width > self._largest:
            raise BatchTooLarge(f"A beam may be {self._largest} wide, as a batch is.", limit=self._largest)
        instances = self._instances(served, generation, options, asked, terms)
        return Begun(served, generation, len(instances), self._run(served, instances))

    def _instances(
        self, served: ServedVersion, generation: Generation, options: Options, asked: Generate, terms: Terms
    ) -> list["_Instance"]:
        encode = generation.encode
        columns = asked.read(encode, self._rows_limit)
        width = options.beam.width if options.beam else 1
        check_rows(max(map(len, columns.values()), default=0) * width, self._rows_limit)
        lane = terms.lane(Lane(served.model, served.version, encode.name))
        buckets = self._buckets.of(served, encode)
        found = grouped(lane, encode, columns, buckets.bounds_for, 1, terms.deadline)
        buckets.observe(found.lengths)
        tickets = [ticket for _, ticket in sorted(zip(found.rows, found.tickets, strict=True), key=itemgetter(0))]
        for ticket in tickets:
            ticket.priority_s = terms.priority_s
        return [_Instance(generation, options, ticket, index) for index, ticket in enumerate(tickets)]

    async def _run(self, served: ServedVersion, instances: Sequence["_Instance"]) -> AsyncGenerator[Event]:
        events: Backlog[Event] = Backlog(self._rows_limit)
        going = dict(enumerate(instances))
        self._watcher.generating(served.model, len(going))
        try:
            for instance in instances:
                instance.begin(self._engine, events)
            while going:
                event = await events.get()
                if isinstance(event, Ended):
                    self._ended(served, going.pop(event.index), event.outcome)
                yield event
        finally:
            for instance in going.values():
                self._engine.cancel(instance.ticket)
                self._ended(served, instance, None)

    def _ended(self, served: ServedVersion, instance: "_Instance", outcome: list[Result] | SluiceError | None) -> None:
        if outcome is None:
            why = "client_gone"
        else:
            why = outcome.code if isinstance(outcome, SluiceError) else outcome[0].finished
        self._watcher.generating(served.model, -1)
        self._watcher.generated(served.model, served.version, why, instance.steps)


class _Instance:
    """The course of one instance: its ticket runs the encoder first, and then each step of the decoder."""

    def __init__(self, generation: Generation, options: Options, ticket: Ticket, index: int) -> None:
        self.steps = 0
        self.ticket = ticket
        self._generation = generation
        self._options = options
        self._index = index
        self._events: Backlog[Event]  # from `begin` on
        self._decoding: Decoding | None = None
        ticket.course = self

    def begin(self, engine: Engine, events: Backlog[Event]) -> None:
        self._events = events
        engine.submit(self.ticket, Pending(lambda outcome: events.put_nowait(Ended(self._index, outcome))))

    def advance(self, outputs: Rows) -> Stage | list[Result]:
        """Raises: BackendError, and QueueFull: nobody reads the tokens."""
        decoding = self._decoding
        if decoding is None:
            states = state_rows(self._generation.encode.states, outputs)
            sampling = self._options.sampling
            # Each instance draws numbers of its own, so that its answer is the same whoever shares its batches.
            dice = np.random.default_rng((sampling.seed if sampling else 0, self._index))
            decoding = self._decoding = Decoding(self._generation, self._options, states, dice.random)
        else:
            token = decoding.advance(outputs)
            self.steps = decoding.steps
            if token is not None:
                self._events.offer(Token(self._index, decoding.steps - 1, token))
        if decoding.done:
            return decoding.results()
        inputs, lane = decoding.inputs(), self.ticket.lane
        decode = Lane(lane.model, lane.version, self._generation.decode.name, rows_like(inputs), low=lane.low)
        return Stage(decode, inputs, decoding.rows)
