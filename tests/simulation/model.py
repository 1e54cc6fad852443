"""The model that simulations serve, twice: in numpy for batches, and in plain integers, one step at a time.

It hashes what a session has seen. All numbers are whole and below 2**53, so float64 is exact, and a step that is lost,
doubled or out of order changes every state after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sluice.policy.batch import Lane, Ticket
from sluice.policy.batching import BatchingOptions
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import InputRejected
from sluice.policy.scheduler import Scheduler
from sluice.policy.session import Session, Step
from sluice.policy.sessions import SessionOptions
from sluice.policy.tensors import bound_for, padded

Arrays = Mapping[str, np.ndarray]

POISON = 666  # the model refuses every batch with this input in it
SPOIL = 667  # makes the state NaN
PRIME = 2_147_483_647
FACTOR = 1_000_003
MODEL, VERSION = "hash", 1
INITIAL = 5
SCAN_LIMIT = 16

_BATCH, _TIME = {"name": "batch"}, {"name": "time"}


def _call(kind: str, *axes: dict[str, str], **more: str) -> dict[str, object]:
    tensor = {"dtype": "float64", "axes": list(axes)}
    states = [
        {"name": "hash", "input": "hash", "output": "new_hash", "dtype": "float64", "shape": [], "initial": INITIAL},
        {"name": "count", "input": "count", "output": "new_count", "dtype": "int64", "shape": [1], "initial": 0},
    ]
    return {"kind": kind, "inputs": {"x": tensor}, "outputs": {"y": tensor}, "states": states, **more}


CONTRACT = parse_contract(
    {
        "schema": 1,
        "signatures": {
            "step": _call("step", _BATCH),
            "scan": _call("scan", _BATCH, _TIME, lengths="lengths"),
        },
    }
)
STEP, SCAN = CONTRACT.signatures["step"], CONTRACT.signatures["scan"]


def hashed(state: int, xs: Sequence[int]) -> list[int]:
    """The states after each of `xs`, the slow way."""
    states = []
    for x in xs:
        state = (state * FACTOR + x) % PRIME
        states.append(state)
    return states


def doubled(xs: Sequence[int]) -> list[int]:
    """What rows without a session give."""
    return [2 * x + 1 for x in xs]


def answer(signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
    """What the model answers to a batch.

    Raises:
        InputRejected: there is poison in it.
    """
    x = inputs["x"]
    if (x == POISON).any():
        raise InputRejected("The model found poison.")
    x = np.where(x == SPOIL, np.nan, x)
    if signature == "rows":
        return {"y": 2 * x + 1}
    state = inputs["hash"]
    if signature == "step":
        state = (state * FACTOR + x) % PRIME
        return {"y": state, "new_hash": state, "new_count": inputs["count"] + 1}
    states = []
    for column in x.T:
        state = (state * FACTOR + column) % PRIME
        states.append(state)
    y = np.stack(states, axis=1)
    lengths = inputs["lengths"]
    return {"y": y, "new_hash": y[np.arange(len(y)), lengths - 1], "new_count": inputs["count"] + lengths[:, None]}


class RecordingScheduler(Scheduler):
    """Keeps every outcome that it gave a ticket, also those of which the ticket's client never heard.

    asked: what came in steps: the sessions by row, and the inputs of each, one for each time step.
    """

    def __init__(self, batching: BatchingOptions, sessions: SessionOptions) -> None:
        super().__init__(batching, sessions)
        self.outcomes: dict[Ticket, list[Any]] = {}
        self.asked: dict[Step, tuple[list[Session], list[list[int]]]] = {}

    def offer(self, ticket: Ticket, now: float) -> None:
        if isinstance(ticket, Step):
            xs = ticket.inputs["x"].reshape(ticket.rows, -1)[:, : ticket.length].tolist()
            self.asked[ticket] = ([session for _, session in ticket.living()], xs)
        super().offer(ticket, now)

    def outcome(self, ticket: Ticket) -> Any:
        """None: it was refused at the door, or never came there."""
        return self.outcomes.get(ticket, [None])[0]

    def _close(self, ticket: Ticket, outcome: Any) -> None:
        self.outcomes.setdefault(ticket, []).append(outcome)
        super()._close(ticket, outcome)


def step(session: Session, x: int, deadline: float, number: int | None = None) -> Step:
    return steps([session], [x], deadline, None if number is None else [number])


def steps(sessions: Sequence[Session], xs: Sequence[int], deadline: float, numbers: Sequence[int] | None) -> Step:
    """One time step of each session with its own of `xs`."""
    slab = sessions[0].slab
    return Step(sessions, STEP, {"x": np.array(xs, np.float64)}, deadline, slab=slab, numbers=numbers)


def scan(session: Session, xs: Sequence[int], deadline: float, number: int | None = None) -> Step:
    length = len(xs)
    bound = bound_for(length, SCAN_LIMIT)
    inputs = padded({"x": np.array(xs, np.float64)}, bound) | {"lengths": np.array([length], np.int32)}
    return Step(
        [session], SCAN, inputs, deadline,
        slab=session.slab, length=length, time_bound=bound, numbers=None if number is None else [number],
    )  # fmt: skip


def state_of(session: Session) -> tuple[float, int]:
    """Its hash, and how many time steps the model has counted."""
    states = session.slab.states
    return states["hash"][session.slot].item(), states["count"][session.slot].item()


def rows(xs: Sequence[int], deadline: float) -> Ticket:
    return Ticket(Lane(MODEL, VERSION, "rows"), {"x": np.array(xs, np.float64)}, len(xs), deadline)
