"""One of several clients closes its connection at every turn of the loop, seen from the ASGI side.

`receive` says `http.disconnect` at that turn, as a server does; what reaches `send` afterwards nobody reads.
"""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway.catalog import ServedVersion
from services.gateway.engine import Engine
from services.gateway.front import Front
from services.gateway.gateway import Gateway
from services.gateway.metrics import Metrics
from services.gateway.settings import Settings
from services.policy.contract import Contract, Signature
from services.policy.scheduler import Scheduler

from .loop import VirtualLoop, run
from .model import CONTRACT, INITIAL, MODEL, SCAN, STEP, VERSION, doubled, hashed
from .test_cancellation import TurningRunner

ROWS = Signature("rows", "rows", STEP.inputs, STEP.outputs)
SIGNATURES = {"step": STEP, "scan": SCAN, "rows": ROWS}
CALLS = {"step": [11], "scan": [11, 12, 13], "predict": [11, 12, 13, 14, 15]}
MATES = 2


class FixedCatalog:
    """Serves the one model for ever."""

    def __init__(self) -> None:
        contract = Contract(CONTRACT.summary, SIGNATURES, CONTRACT.document)
        rows = {name: {"x": each.inputs["x"].row()} for name, each in SIGNATURES.items()}
        self.served = ServedVersion(MODEL, VERSION, contract, SIGNATURES, rows)
        self.models = {MODEL: SimpleNamespace(name=MODEL)}

    async def find(self, name: str, version: int | None = None) -> ServedVersion:
        return self.served


class Client:
    """One request; after its body `receive` waits until the client leaves."""

    def __init__(self, front: Front, path: str, body: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self._front, self._path = front, path
        self._body = json.dumps(body).encode()
        self._read = False
        self._left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._left.set()

    async def ask(self) -> "Client":
        scope = {"type": "http", "method": "POST", "path": self._path, "headers": []}
        await self._front(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def replayed(self) -> bool:
        return (b"sluice-replayed", b"true") in self.sent[0]["headers"]

    @property
    def answer(self) -> Any:
        assert self.status == 200, self.sent
        return json.loads(self.sent[1]["body"])


class World:
    def __init__(self) -> None:
        settings = Settings(backend="nowhere:1", allowed_batch_sizes=(1, 2), in_flight=1)
        self.scheduler = Scheduler(settings.batching, settings.sessions)
        self.metrics = Metrics()
        self.engine = Engine(self.scheduler, TurningRunner(deaths=0), self.metrics)
        self.gateway = Gateway(settings, FixedCatalog(), self.engine)  # type: ignore[arg-type]
        self.front = Front(None, lambda: self.gateway, self.metrics)  # type: ignore[arg-type]

    def client(self, call: str, id: str, number: int | None = None) -> Client:
        xs = CALLS[call]
        if call == "predict":
            body = {"signature_name": "rows", "instances": xs}
            return Client(self.front, f"/v1/models/{MODEL}:predict", body)
        inputs = xs[0] if call == "step" else xs
        return Client(self.front, f"/v1/sessions/{id}:{call}", {"inputs": inputs, "step": number})

    def right(self, call: str, client: Client) -> bool:
        xs = CALLS[call]
        if call == "predict":
            return bool(client.answer == {"predictions": doubled(xs)})
        outputs = hashed(INITIAL, xs)
        return bool(client.answer == {"outputs": {"y": outputs if call == "scan" else outputs[0]}, "step": len(xs)})


async def play(loop: VirtualLoop, call: str, position: int, leave_at: int | None) -> tuple[int, str]:
    """How many turns it took, and what became of the client that left."""
    world = World()
    ids = [(await world.gateway.open_session(MODEL, id=f"s{n}")).session for n in range(MATES + 1)]
    clients = [world.client(call, id, number=0) for id in ids]
    victim, start = clients[position], loop.turn

    def on_turn(turn: int) -> None:
        if leave_at is not None and turn - start == leave_at:
            victim.leave()

    loop.on_turn = on_turn
    await asyncio.gather(*(client.ask() for client in clients))
    turns = loop.turn - start
    loop.on_turn = None
    await world.engine.drained()
    assert not world.scheduler.busy and not world.scheduler.settled
    for client in clients:
        assert (not client.sent and client is victim) or world.right(call, client)
    retry = await world.client(call, ids[position], number=0).ask()
    assert world.right(call, retry)
    moved = "moved" if retry.replayed else "not moved"
    await asyncio.sleep(0)  # the last listener ends
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return turns, f"{'told' if victim.sent else 'left'}, {moved}"


@pytest.mark.parametrize("position", [0, MATES])
@pytest.mark.parametrize("call", list(CALLS))
def test_a_client_that_leaves_at_any_turn_harms_nobody(call, position):
    turns, _ = run(lambda loop: play(loop, call, position, None))
    met = set()
    for leave_at in range(1, turns + 2):
        try:
            met.add(run(lambda loop, at=leave_at: play(loop, call, position, at))[1])
        except AssertionError as error:
            raise AssertionError(f"left at turn {leave_at}: {error}") from error
    stays = {"told, not moved", "left, not moved"}
    assert met == (stays if call == "predict" else {"told, moved", "left, not moved", "left, moved"})
