"""A model server on strings: it runs a batch when the test says so, on time that the test makes up.

Its model is a polynomial hash in float64, exact and sensitive to order, so that a step that is lost, doubled or out of
order shows in every bit after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sluice.policy.batch import Batch, Lane, Ticket
from sluice.policy.batching import BatchingOptions
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import InputRejected, SluiceError
from sluice.policy.scheduler import Scheduler, feeds
from sluice.policy.session import Session, Step
from sluice.policy.sessions import SessionOptions
from sluice.policy.tensors import bound_for, padded

Arrays = Mapping[str, np.ndarray]

POISON = 666.0  # an input for which the model refuses the whole batch
SPOIL = -1.0  # an input that makes the new state NaN
PRIME = 65537.0
FAR = 1e9  # a deadline that never comes
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # of batches, where a test does not say it

_BATCH, _TIME, _FEATURE = {"name": "batch"}, {"name": "time"}, {"name": "feature", "size": 2}
_STATES = [
    {"name": "hash", "input": "hash_in", "output": "hash_out", "dtype": "float64", "shape": [2], "initial": [1.0, 2.0]},
    {"name": "count", "input": "count_in", "output": "count_out", "dtype": "int64", "shape": [], "initial": 0},
]


def contract_document() -> dict[str, Any]:
    """The puppet model's contract, fresh and free to be spoiled."""

    def call(kind: str, *axes: dict[str, Any]) -> dict[str, Any]:
        tensor = {"dtype": "float64", "axes": [dict(axis) for axis in axes]}
        states = [] if kind == "rows" else [dict(state) for state in _STATES]
        lengths = {"lengths": "lengths"} if kind == "scan" else {}
        return {"kind": kind, "inputs": {"x": tensor}, "outputs": {"y": dict(tensor)}, "states": states, **lengths}

    return {
        "schema": 1,
        "summary": "hashes what it has seen",
        "signatures": {
            "serving_default": call("rows", _BATCH, _FEATURE),
            "step": call("step", _BATCH, _FEATURE),
            "scan": call("scan", _BATCH, _TIME, _FEATURE),
        },
    }


CONTRACT = parse_contract(contract_document())
STEP, SCAN = CONTRACT.signatures["step"], CONTRACT.signatures["scan"]


def answer(signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
    """What the model answers to a whole batch.

    Raises:
        InputRejected: a row of it is poison.
    """
    x = inputs["x"]
    if (x == POISON).any():
        raise InputRejected("The model found poison.")
    if signature == "serving_default":
        return {"y": x * 2 + 1}
    if signature == "step":
        new = _hashed(inputs["hash_in"], x)
        return {"y": new, "hash_out": new, "count_out": inputs["count_in"] + 1}
    state, states = inputs["hash_in"], []
    for t in range(x.shape[1]):
        state = _hashed(state, x[:, t])
        states.append(state)
    y, last = np.stack(states, axis=1), inputs["lengths"] - 1
    return {"y": y, "hash_out": y[np.arange(len(y)), last], "count_out": inputs["count_in"] + inputs["lengths"]}


def _hashed(state: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (state * 31 + np.where(x == SPOIL, np.nan, x) + 7) % PRIME


def row_ticket(*values: float, deadline: float = FAR, model: str = "m", version: int = 1) -> Ticket:
    """A request of one row for each of `values`, without a session."""
    x = np.array([[value, value] for value in values])
    return Ticket(Lane(model, version, "serving_default"), {"x": x}, len(x), deadline)


def step_ticket(
    sessions: Sequence[Session], xs: Sequence[float], numbers: Sequence[int] | None = None, deadline: float = FAR
) -> Step:
    """One step of one session or of many, which are on one version; `xs` and `numbers` by session."""
    x = np.array([[x, x] for x in xs])
    return Step(sessions, STEP, {"x": x}, deadline, slab=sessions[0].slab, numbers=numbers)


def scan_ticket(session: Session, xs: Sequence[float], number: int | None = None, deadline: float = FAR) -> Step:
    chunk, length = {"x": np.array([[x, x] for x in xs])}, len(xs)
    bound = bound_for(length, 64)
    inputs = padded(chunk, bound) | {"lengths": np.array([length], np.int32)}
    numbers = None if number is None else [number]
    return Step([session], SCAN, inputs, deadline, slab=session.slab, length=length, time_bound=bound, numbers=numbers)


class Puppet:
    """A scheduler, its time, and the batches that it has given and that have not come back."""

    def __init__(self, batching: BatchingOptions | None = None, sessions: SessionOptions | None = None) -> None:
        self.scheduler = Scheduler(batching or BatchingOptions(SIZES), sessions or SessionOptions())
        self.now = 1.0
        self.ran: list[Batch] = []
        self._fed: dict[int, Arrays] = {}

    def open(self, id: str = "a", model: str = "m", version: int = 1, **more: Any) -> Session:
        return self.scheduler.open(id, model, version, STEP, self.now, **more)

    def step(self, session: Session, x: float = 1.0, number: int | None = None, deadline: float = FAR) -> Step:
        return self.many([session], [x], None if number is None else [number], deadline)

    def many(self, sessions: Sequence[Session], xs: Sequence[float], *more: Any, **named: Any) -> Step:
        return self.offered(step_ticket(sessions, xs, *more, **named))

    def scan(self, session: Session, xs: Sequence[float], *more: Any, **named: Any) -> Step:
        return self.offered(scan_ticket(session, xs, *more, **named))

    def fork(self, parent: Session, id: str, **more: Any) -> Session:
        slab = parent.slab
        return self.open(id, slab.model, slab.version, rows=slab.read(parent.slot), step=parent.step, **more)

    def rows(self, *values: float, **more: Any) -> Ticket:
        return self.offered(row_ticket(*values, **more))

    def offered(self, ticket: Any) -> Any:
        self.scheduler.offer(ticket, self.now)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        self.scheduler.cancel(ticket, self.now)

    def take(self) -> Batch | None:
        batch = self.scheduler.take(self.now)
        if batch is not None:
            self.ran.append(batch)
            self._fed[id(batch)] = feeds(batch)
        return batch

    def taken(self) -> Batch:
        batch = self.take()
        assert batch is not None
        return batch

    def feed(self, batch: Batch) -> Arrays:
        """What the model server was sent, read from the sessions when the batch was taken."""
        return self._fed[id(batch)]

    def answer(self, batch: Batch) -> dict[str, np.ndarray] | SluiceError:
        try:
            return answer(batch.lane.signature, self.feed(batch))
        except InputRejected as error:
            return error

    def finish(self, batch: Batch, result: Arrays | SluiceError | None = None) -> None:
        """The batch comes back with `result`, or with what the model answers to it."""
        self.scheduler.finished(batch, self.answer(batch) if result is None else result, self.now)

    def run(self) -> None:
        """Run everything that waits."""
        for _ in range(1000):
            if (batch := self.take()) is None:
                return
            self.finish(batch)
        raise AssertionError("it never comes to an end")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.tick(self.now)
