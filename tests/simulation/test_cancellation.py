"""One client among batch-mates gives up at every single turn of the loop, from asking to being answered.

Whatever the turn: the others are answered rightly, and its session has moved with an answer kept, or has not moved.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from services.gateway.engine import BatchEnded, Engine
from services.policy.batching import BatchingOptions, Ticket
from services.policy.errors import BackendUnavailable, InputRejected
from services.policy.scheduler import Scheduler
from services.policy.sessions import Answer, Event, Phase, Session, SessionOptions

from .loop import VirtualLoop, run
from .model import INITIAL, MODEL, POISON, STEP, VERSION, RecordingScheduler, answer, doubled, hashed, rows, scan, step

FAR_S = 100.0
MATES = 3
XS = {"step": [11], "scan": [11, 12, 13], "predict": [11, 12]}


class Nobody:
    def batch_ended(self, event: BatchEnded) -> None: ...

    def session_ended(self, session: Session, event: Event) -> None: ...


class TurningRunner:
    """Takes a few turns of the loop and a little time for each batch; dies with the first `deaths` of them."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    async def predict(
        self, model: str, version: int, signature: str, inputs: dict[str, np.ndarray], outputs: Any, timeout_s: float
    ) -> dict[str, np.ndarray]:
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
    sessions = [scheduler.open(f"s{n}", MODEL, VERSION, STEP.states, engine.now()) for n in range(MATES + 1)]
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


def states_of(session: Session) -> tuple[float, int]:
    arrays = session.slab.arrays
    return arrays["hash"][session.slot].item(), arrays["count"][session.slot].item()


def check_mates(scene: Scene, kind: str, fault: str) -> None:
    xs = XS[kind]
    wanted = doubled(xs) if kind == "predict" else hashed(INITIAL, xs)
    refused = [type(told) for told in scene.mates_told if isinstance(told, Exception)]
    assert refused == {"none": [], "poison": [InputRejected], "death": [BackendUnavailable] * MATES}[fault]
    for told in scene.mates_told:
        if kind == "predict" and isinstance(told, dict):
            assert told["y"].tolist() == wanted
        elif isinstance(told, Answer):
            assert np.atleast_1d(told.outputs["y"]).tolist() == wanted
            assert told.step == len(xs)


def check_victim(scene: Scene, kind: str) -> None:
    """Its session is where its answered calls have taken it, whoever heard of them."""
    assert scene.victim is not None and scene.session is not None
    outcome, told, xs = scene.victim_outcome, scene.victim_told, XS[kind]
    if not isinstance(told, asyncio.CancelledError):
        assert told is outcome
    moved = isinstance(outcome, Answer)
    state, done = (hashed(INITIAL, xs)[-1], len(xs)) if moved else (INITIAL, 0)
    if isinstance(scene.follower_told, Answer):
        state, done = hashed(state, [77])[-1], done + 1
        assert (scene.follower_told.outputs["y"].item(), scene.follower_told.step) == (state, done)
    if isinstance(scene.retry_told, Answer):
        assert scene.retry_told.replayed == moved
        assert np.atleast_1d(scene.retry_told.outputs["y"]).tolist() == hashed(INITIAL, xs)
        assert scene.retry_told.step == len(xs)
        state, done = hashed(INITIAL, xs)[-1], len(xs)
    elif scene.retry_told is not None:
        assert scene.retry_told["y"].tolist() == doubled(xs)
    assert (*states_of(scene.session), scene.session.step) == (state, done, done)


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
    good = "dict" if kind == "predict" else "Answer"
    if fault == "none":  # the sweep has seen all there is: never offered, withdrawn, answered and gone, answered
        gone = "CancelledError"
        assert outcomes == {(gone, "NoneType"), (gone, "Cancelled"), (gone, good), (good, good)}


@pytest.mark.parametrize("how", ["opened", "renewed"])
def test_a_tiny_idle_time_of_a_session_that_steps_does_not_keep_the_loop_busy(how):
    async def main(loop: VirtualLoop) -> int:
        scheduler = Scheduler(BatchingOptions(), SessionOptions())
        engine = Engine(scheduler, TurningRunner(deaths=0), Nobody())
        ttl_s = 1e-300 if how == "opened" else None
        session = scheduler.open("s", MODEL, VERSION, STEP.states, engine.now(), ttl_s=ttl_s)
        stepping = asyncio.create_task(engine.run(offered("step", session, [1])))
        await asyncio.sleep(0)
        if how == "renewed":
            scheduler.sessions.renew(session, engine.now(), 1e-300)
            engine.changed()
        assert (await stepping).step == 1
        await asyncio.sleep(1)
        assert session.phase is Phase.EXPIRED
        return loop.turn

    assert run(main) < 40
