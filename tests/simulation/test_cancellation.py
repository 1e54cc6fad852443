"""One client among batch-mates gives up at every single turn of the loop, from asking to being answered.

Whatever the turn: the others are answered rightly, and its session has moved with an answer kept, or has not moved.
First the engine alone, then every transport, from bytes to bytes.
"""

import asyncio
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import pytest

from sluice.gateway.core.engine import BatchEnded, Engine
from sluice.gateway.core.resolve import ModelSpec
from sluice.policy.batch import Ticket
from sluice.policy.batching import BatchingOptions
from sluice.policy.errors import BackendUnavailable, InputRejected
from sluice.policy.scheduler import Scheduler
from sluice.policy.session import Answers, Event, Phase, Session
from sluice.policy.sessions import SessionOptions
from tests.size import size

from .doors import Client, GrpcClient, HttpClient, SocketClient, Told, World
from .loop import VirtualLoop, run
from .model import (
    INITIAL,
    MODEL,
    POISON,
    STEP,
    VERSION,
    RecordingScheduler,
    answer,
    doubled,
    hashed,
    rows,
    scan,
    state_of,
    step,
)

FAR_S = 100.0
MATES = 3
XS = {"step": [11], "scan": [11, 12, 13], "predict": [11, 12]}


class Nobody:
    def batch_ended(self, event: BatchEnded) -> None: ...

    def session_ended(self, session: Session, event: Event) -> None: ...


class TurningRunner:
    """Takes some turns of the loop and a little time for each batch; dies with the first `deaths` of them."""

    def __init__(self, deaths: int, turns: int = 1) -> None:
        self.deaths = deaths
        self.turns = turns

    async def predict(
        self, model: str, version: int, signature: str, inputs: dict[str, np.ndarray], outputs: Any, timeout_s: float
    ) -> dict[str, np.ndarray]:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        if self.deaths:
            self.deaths -= 1
            raise BackendUnavailable("It died with the batch.")
        return answer(signature, inputs)


@dataclass
class Scene:
    """What one run leaves behind; `victim` is the ticket of the client that gave up."""

    turns: int = 0
    victim: Ticket | None = None
    victim_outcome: Any = None
    victim_told: Any = None
    mates_told: list[Any] = field(default_factory=list)
    follower_told: Any = None
    retry_told: Any = None
    session: Session | None = None


def offered(kind: str, session: Session, xs: list[int], number: int | None = None) -> Ticket:
    deadline = asyncio.get_running_loop().time() + FAR_S
    if kind == "predict":
        return rows(xs, deadline)
    return step(session, xs[0], deadline, number) if kind == "step" else scan(session, xs, deadline, number)


async def play(loop: VirtualLoop, kind: str, position: int, fault: str, follows: bool, cancel_at: int | None) -> Scene:
    """The victim is client number `position` of a batch; it gives up `cancel_at` turns after its task was made.

    With `follows` another step of the victim's session waits behind; without, the victim sends its call again.
    """
    scene = Scene()
    scheduler = RecordingScheduler(BatchingOptions(allowed_batch_sizes=(1, 2, 4, 8), in_flight=1), SessionOptions())
    engine = Engine(scheduler, TurningRunner(deaths=fault == "death"), Nobody())
    sessions = [scheduler.open(f"s{n}", MODEL, VERSION, STEP, engine.now()) for n in range(MATES + 1)]
    tickets = [offered(kind, session, XS[kind], number=0) for session in sessions]
    if fault == "poison":
        poisoned = (position + 1) % len(tickets)
        tickets[poisoned] = offered(kind, sessions[poisoned], [POISON, *XS[kind][1:]])
    scene.victim, scene.session = tickets[position], sessions[position]
    tasks = [asyncio.create_task(engine.run(ticket)) for ticket in tickets]
    victim, start = tasks[position], loop.turn
    if follows:
        tasks.append(asyncio.create_task(engine.run(offered("step", scene.session, [77]))))

    def on_turn(turn: int) -> None:
        if cancel_at is not None and turn - start == cancel_at:
            victim.cancel()

    loop.on_turn = on_turn
    told = await asyncio.gather(*tasks, return_exceptions=True)
    scene.turns = loop.turn - start
    loop.on_turn = None
    scene.follower_told = told.pop() if follows else None
    scene.victim_told = told.pop(position)
    scene.victim_outcome = scheduler.outcome(scene.victim)
    scene.mates_told = told
    if not follows:
        scene.retry_told = await engine.run(offered(kind, scene.session, XS[kind], number=0))
    await engine.drained()
    assert not scheduler.busy and not scheduler.settled
    assert all(session.phase is Phase.IDLE and not session.steps for session in sessions)
    return scene


def check_mates(scene: Scene, kind: str, fault: str) -> None:
    xs = XS[kind]
    wanted = doubled(xs) if kind == "predict" else hashed(INITIAL, xs)
    refused = [type(told) for told in scene.mates_told if isinstance(told, Exception)]
    assert refused == {"none": [], "poison": [InputRejected], "death": [BackendUnavailable] * MATES}[fault]
    for told in scene.mates_told:
        if kind == "predict" and isinstance(told, dict):
            assert told["y"].tolist() == wanted
        elif isinstance(told, Answers):
            assert told.outputs["y"].ravel().tolist() == wanted
            assert told.steps == [len(xs)]


def check_victim(scene: Scene, kind: str) -> None:
    """Its session is where its answered calls have taken it, whoever heard of them."""
    assert scene.victim is not None and scene.session is not None
    outcome, told, xs = scene.victim_outcome, scene.victim_told, XS[kind]
    if not isinstance(told, asyncio.CancelledError):
        assert told is outcome
    moved = isinstance(outcome, Answers)
    state, done = (hashed(INITIAL, xs)[-1], len(xs)) if moved else (INITIAL, 0)
    if isinstance(scene.follower_told, Answers):
        state, done = hashed(state, [77])[-1], done + 1
        assert (scene.follower_told.outputs["y"].item(), scene.follower_told.steps) == (state, [done])
    if isinstance(scene.retry_told, Answers):
        assert scene.retry_told.replayed == moved
        assert scene.retry_told.outputs["y"].ravel().tolist() == hashed(INITIAL, xs)
        assert scene.retry_told.steps == [len(xs)]
        state, done = hashed(INITIAL, xs)[-1], len(xs)
    elif scene.retry_told is not None:
        assert scene.retry_told["y"].tolist() == doubled(xs)
    assert (*state_of(scene.session), scene.session.step) == (state, done, done)


@pytest.mark.parametrize("follows", [True, False], ids=["followed", "retried"])
@pytest.mark.parametrize("fault", ["none", "poison", "death"])
@pytest.mark.parametrize("position", [0, 1, MATES])
@pytest.mark.parametrize("kind", ["step", "scan", "predict"])
def test_a_client_that_gives_up_at_any_turn_harms_nobody(kind, position, fault, follows):
    turns = run(lambda loop: play(loop, kind, position, fault, follows, None)).turns
    outcomes = set()
    for cancel_at in range(1, turns + 2):
        scene = run(lambda loop, at=cancel_at: play(loop, kind, position, fault, follows, at))
        try:
            check_mates(scene, kind, fault)
            check_victim(scene, kind)
        except AssertionError as error:
            raise AssertionError(f"cancelled at turn {cancel_at}: {error}") from error
        outcomes.add((type(scene.victim_told).__name__, type(scene.victim_outcome).__name__))
    good = "dict" if kind == "predict" else "Answers"
    if fault == "none":  # the sweep has seen all there is: never offered, withdrawn, answered and gone, answered
        gone = "CancelledError"
        assert outcomes == {(gone, "NoneType"), (gone, "Cancelled"), (gone, good), (good, good)}


@pytest.mark.parametrize("how", ["opened", "renewed"])
def test_a_tiny_idle_time_of_a_session_that_steps_does_not_keep_the_loop_busy(how):
    async def main(loop: VirtualLoop) -> int:
        scheduler = Scheduler(BatchingOptions(), SessionOptions())
        engine = Engine(scheduler, TurningRunner(deaths=0), Nobody())
        ttl_s = 1e-300 if how == "opened" else None
        session = scheduler.open("s", MODEL, VERSION, STEP, engine.now(), ttl_s=ttl_s)
        stepping = asyncio.create_task(engine.run(offered("step", session, [1])))
        await asyncio.sleep(0)
        if how == "renewed":
            scheduler.sessions.renew(session, engine.now(), 1e-300)
            engine.changed()
        assert (await stepping).steps == [1]
        await asyncio.sleep(1)
        assert session.phase is Phase.EXPIRED
        return loop.turn

    assert run(main) < 40


# Every transport.

NOTICED = 6  # turns after which a gateway knows that a client has given up
OWN = 5  # sessions of a call of many; more than the largest batch holds
HALF_CLOSED_S = {"half closes": 1.0, "half closes too early": 1e-4}  # more than a batch takes, and less
WAYS = {  # how a client can give a call up; one that half closes its connection may just wait for the answer
    "http step": ["leaves", *HALF_CLOSED_S],
    "http scan": ["leaves"],
    "http many": ["leaves"],
    "socket": ["leaves", "closes"],
    "grpc step": ["leaves", "cancels"],
    "grpc scan": ["leaves", "cancels"],
    "grpc many": ["leaves", "cancels"],
    "stream": ["leaves", "cancels"],
}


class Asker:
    """One client of one transport, with sessions of its own, and the one call that it makes."""

    def __init__(self, world: World, kind: str, name: str) -> None:
        self.kind = kind
        self.many = kind in ("http many", "grpc many", "stream")
        self.xs = [11, 12, 13, 14, 15] if self.many else [11, 12, 13] if kind.endswith("scan") else [11]
        self.ids = [f"{name}-{n}" for n in range(OWN if self.many else 1)]
        self.client: Client
        self._world = world

    async def open(self) -> None:
        for id in self.ids:
            await self._world.gateway.sessions.open(ModelSpec(MODEL), inf, id=id)

    def ask(self) -> "asyncio.Future[Told]":
        world, numbers = self._world, [0] * len(self.ids)
        match self.kind.split():
            case ["http", "many"]:
                client = self.client = HttpClient(world)
                body = {"sessions": self.ids, "inputs": self.xs, "steps": numbers}
                return client.call(f"/v1/models/{MODEL}/sessions:step", body)
            case ["http", call]:
                client = self.client = HttpClient(world)
                inputs = self.xs if call == "scan" else self.xs[0]
                return client.call(f"/v1/sessions/{self.ids[0]}:{call}", {"inputs": inputs, "step": 0})
            case ["socket"]:
                socket = self.client = SocketClient(world, self.ids[0])
                return socket.call({"inputs": self.xs[0], "step": 0})
            case ["stream"]:
                grpc = self.client = GrpcClient(world)
                return grpc.streamed(self.ids, self.xs, numbers)
            case [_, "many"]:
                grpc = self.client = GrpcClient(world)
                return grpc.many(self.ids, self.xs, numbers)
            case _:
                grpc = self.client = GrpcClient(world)
                call = "Scan" if self.kind == "grpc scan" else "Step"
                return grpc.step(call, self.ids[0], self.xs if call == "Scan" else self.xs[0], 0)

    def give_up(self, way: str) -> None:
        if way in HALF_CLOSED_S:
            self.client.wire.end()
            return
        getattr(self.client, {"leaves": "leave", "closes": "close", "cancels": "cancel"}[way])()
        self.client.stop_waiting()

    def steps(self) -> list[int]:
        return [self._world.gateway.sessions.get(id).step for id in self.ids]

    def right(self, told: Told) -> bool:
        told = {name: value for name, value in told.items() if name != "replayed"}
        if self.many:
            each = [hashed(INITIAL, [x])[0] for x in self.xs]
            return told == {"outputs": {"y": each}, "steps": [1] * OWN, "errors": [None] * OWN}
        outputs = hashed(INITIAL, self.xs)
        return told == {"outputs": {"y": outputs if self.kind.endswith("scan") else outputs[0]}, "step": len(outputs)}

    async def check_sessions(self) -> set[bool]:
        """Each is where its answered calls have taken it: asked again, it gives the one right answer."""
        moved = set()
        retrying = HttpClient(self._world)
        for n, id in enumerate(self.ids):
            xs = [self.xs[n]] if self.many else self.xs
            session = self._world.gateway.sessions.get(id)
            before = (*state_of(session), session.step)
            has_moved = session.step > 0
            assert before == ((hashed(INITIAL, xs)[-1], len(xs), len(xs)) if has_moved else (INITIAL, 0, 0))
            moved.add(has_moved)
            call, inputs = ("scan", xs) if self.kind.endswith("scan") else ("step", xs[0])
            told = await retrying.call(f"/v1/sessions/{id}:{call}", {"inputs": inputs, "step": 0})
            assert ("replayed" in told) == has_moved
            assert told["step"] == len(xs)
            outputs = hashed(INITIAL, xs)
            assert told["outputs"]["y"] == (outputs if call == "scan" else outputs[0])
        retrying.leave()
        return moved


async def play_doors(loop: VirtualLoop, kind: str, way: str, fault: str, give_up_at: int | None) -> tuple[int, str]:
    """How many turns it took, and what became of the client that gave up."""
    more = {"half_closed_s": HALF_CLOSED_S[way]} if way in HALF_CLOSED_S else {}
    world = World(TurningRunner(deaths=fault == "death", turns=3 * NOTICED), **more)
    askers = [Asker(world, kind, "victim")]
    askers += [Asker(world, mate, f"mate{n}") for n, mate in enumerate([kind, "http step", "socket", "stream"])]
    for asker in askers:
        await asker.open()
    victim, *mates = askers
    start = loop.turn
    noticed: list[int] = []

    def on_turn(turn: int) -> None:
        if turn - start == give_up_at:
            victim.give_up(way)
        if give_up_at is not None and turn - start == give_up_at + NOTICED:
            noticed.extend(victim.steps())

    loop.on_turn = on_turn
    told = [asker.ask() for asker in askers]
    await asyncio.wait(told)
    while give_up_at is not None and loop.turn - start <= give_up_at + NOTICED:
        await asyncio.sleep(0)
    turns = loop.turn - start
    loop.on_turn = None
    heard = not told[0].cancelled()
    for asker in askers:
        asker.client.leave()
    await world.check_empty()
    assert not world.grpc_connections
    unavailable = 0
    for asker, future in zip(askers, told, strict=True):
        if asker is victim and not heard:
            continue
        died = [each for each in (future.result().get("errors") or [future.result()]) if each and "code" in each]
        assert asker.right(future.result()) or (fault == "death" and died)
        assert {each["code"] for each in died} <= {"backend_unavailable"}
        unavailable += bool(died)
    assert fault == "none" or unavailable or not heard
    assert give_up_at is None or way == "half closes" or noticed == victim.steps(), (
        "it has moved although its client had given up"
    )
    for mate in mates:
        await mate.check_sessions()
    moved = await victim.check_sessions()
    await world.check_empty()
    return turns, f"{'told' if heard else 'gave up'}, {'moved' if True in moved else 'not moved'}"


@pytest.mark.parametrize("fault", ["none", "death"])
@pytest.mark.parametrize(("kind", "way"), [(kind, way) for kind, ways in WAYS.items() for way in ways])
def test_a_call_that_is_given_up_at_any_turn_over_any_transport_harms_nobody(kind, way, fault):
    turns, _ = run(lambda loop: play_doors(loop, kind, way, fault, None))
    met = set()
    # In every run each fault has every other turn, and both together have every turn until the first batch ends.
    for give_up_at in range(size(1 + (fault == "death"), 1), turns + 2, size(2, 1)):
        try:
            met.add(run(lambda loop, at=give_up_at: play_doors(loop, kind, way, fault, at))[1])
        except AssertionError as error:
            raise AssertionError(f"gave up at turn {give_up_at}: {error}") from error
    assert ("gave up, not moved" in met) == (way != "half closes")
    if fault == "none":
        assert "told, moved" in met
        assert "told, not moved" not in met
