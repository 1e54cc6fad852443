"""One set of sessions, stepped by clients of every transport at once, in any order a seed can think of.

The model hashes what a session has seen, so that one step lost, doubled, mixed up or out of order shows in every answer
after it.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

from sluice.policy.session import Answers, Session
from tests.size import size

from .doors import Client, GrpcClient, HttpClient, SocketClient, Told, World
from .loop import VirtualLoop, run
from .model import INITIAL, MODEL, POISON, SPOIL, answer, hashed, state_of

KINDS = ["http", "http", "socket", "socket", "grpc", "stream"]
SESSIONS = 5
SEEDS = range(size(40, 400))


class Runner:
    """Takes its time, a different one for each batch."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def predict(
        self, model: str, version: int, signature: str, inputs: dict[str, np.ndarray], outputs: Any, timeout_s: float
    ) -> dict[str, np.ndarray]:
        for _ in range(self._random.randint(0, 5)):
            await asyncio.sleep(0)
        await asyncio.sleep(self._random.choice([0, 0.001, 0.004]))
        return answer(signature, inputs)


@dataclass
class Call:
    """What one client asked of its sessions, and what it was told; `told` is None if it gave up."""

    transport: str
    ids: list[str]
    xs: list[list[int]]  # by session
    numbers: list[int | None]
    told: Told | None = None

    def rows(self) -> list[tuple[str, list[int], int | None, Told]]:
        """By session: its id, inputs, number, and its own answer, or error."""
        if self.told is None:
            return []
        if "steps" not in self.told:
            return [(id, xs, number, self.told) for id, xs, number in zip(self.ids, self.xs, self.numbers, strict=True)]
        column = self.told["outputs"].get("y") or [None] * len(self.ids)
        return [
            (id, xs, number, error or {"outputs": {"y": [y]}, "step": step})
            for id, xs, number, error, y, step in zip(
                self.ids, self.xs, self.numbers, self.told["errors"], column, self.told["steps"], strict=True
            )
        ]  # fmt: skip


class Player:
    """One client of one kind, which comes back on a new connection when it has left."""

    def __init__(self, world: World, kind: str, random: Random, ids: list[str]) -> None:
        self.calls: list[Call] = []
        self._world, self._kind, self._random = world, kind, random
        self._ids = ids if kind != "socket" else [random.choice(ids)]
        self._client: Any = None

    async def play(self) -> None:
        random = self._random
        for _ in range(random.randint(5, 15)):
            client = self._connected()
            calls = [self._some() for _ in range(random.choice([1, 1, 2, 3]))]
            futures = [self._begin(client, call) for call in calls]
            if random.random() < 0.15:
                await self._give_up(client)
            await asyncio.wait(futures)
            for call, future in zip(calls, futures, strict=True):
                call.told = None if future.cancelled() else future.result()
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))
        if self._client is not None:
            self._client.leave()

    def _connected(self) -> Client:
        if self._client is None:
            kinds = {"http": HttpClient, "socket": SocketClient, "grpc": GrpcClient, "stream": GrpcClient}
            more = self._ids[:1] if self._kind == "socket" else []
            self._client = kinds[self._kind](self._world, *more)
        client: Client = self._client
        return client

    async def _give_up(self, client: Any) -> None:
        for _ in range(self._random.randint(0, 12)):
            await asyncio.sleep(0)
        ways = {"http": [client.leave], "socket": [client.leave, getattr(client, "close", None)]}
        way = self._random.choice(ways.get(self._kind, [client.leave, getattr(client, "cancel", None)]))
        way()
        client.stop_waiting()
        if way != client.leave:
            await asyncio.sleep(0.001)
        client.leave()
        self._client = None

    def _some(self) -> Call:
        """A call: new, or the repeat of one that was made before."""
        random = self._random
        repeatable = [call for call in self.calls if call.told is not None and "code" not in call.told]
        if repeatable and random.random() < 0.2:
            before = random.choice(repeatable[-2:])
            starts = [told["step"] - len(xs) if "step" in told else None for _, xs, _, told in before.rows()]
            call = Call(before.transport, before.ids, before.xs, starts)
        else:
            call = self._new()
        self.calls.append(call)
        return call

    def _new(self) -> Call:
        random = self._random
        transport = {
            "http": random.choice(["http step", "http scan", "http many"]),
            "socket": "socket",
            "grpc": random.choice(["grpc step", "grpc scan", "grpc many"]),
            "stream": "stream",
        }[self._kind]
        many = transport in ("http many", "grpc many", "stream")
        ids = random.sample(self._ids, random.randint(1, len(self._ids)) if many else 1)
        length = random.randint(1, 5) if transport.endswith("scan") else 1
        xs = [[self._input() for _ in range(length)] for _ in ids]
        return Call(transport, ids, xs, [self._number(id) for id in ids])

    def _number(self, id: str) -> int | None:
        step = self._world.gateway.sessions.get(id).step
        return max(0, step + self._random.choice([0, 0, 0, 1, -1])) if self._random.random() < 0.4 else None

    def _input(self) -> int:
        return self._random.choices([self._random.randint(0, 600), POISON, SPOIL], [60, 1, 1])[0]

    def _begin(self, client: Any, call: Call) -> "asyncio.Future[Told]":
        id, row, number = call.ids[0], call.xs[0], call.numbers[0]
        steps = [-1 if each is None else each for each in call.numbers]
        firsts = [xs[0] for xs in call.xs]
        match call.transport:
            case "http many":
                body = {"sessions": call.ids, "inputs": firsts, "steps": call.numbers}
                path = f"/v1/models/{MODEL}/sessions:step"
                return client.call(path, body, pieces=self._random.choice([1, 1, 3]))
            case "http step":
                return client.call(f"/v1/sessions/{id}:step", {"inputs": row[0], "step": number})
            case "http scan":
                return client.call(f"/v1/sessions/{id}:scan", {"inputs": row, "step": number})
            case "socket":
                return client.call({"inputs": row[0], "step": number})
            case "grpc step":
                return client.step("Step", id, row[0], number)
            case "grpc scan":
                return client.step("Scan", id, row, number)
            case "grpc many":
                return client.many(call.ids, firsts, steps)
            case _:
                return client.streamed(call.ids, firsts, steps)


Moved = dict[tuple[str, int], tuple[list[int], list[int]]]  # id and step after it → inputs, outputs


def check_chains(world: World) -> Moved:
    """Every session is the replay of the calls that moved it; what these were, by the step after them."""
    moved: Moved = {}
    scheduler = world.scheduler
    by_session: dict[Session, list[tuple[int, list[int], list[int]]]] = {}
    for step, (sessions, xs) in scheduler.asked.items():
        outcome = scheduler.outcome(step)
        if not isinstance(outcome, Answers):
            continue
        for row, session in enumerate(sessions):
            if row not in outcome.errors and row not in step.replays:
                y = np.ravel(outcome.outputs["y"][row]).tolist()
                by_session.setdefault(session, []).append((outcome.steps[row], xs[row], y))
    for session in scheduler.sessions.of_model(MODEL):
        state, done = INITIAL, 0
        for after, xs, y in sorted(by_session.get(session, [])):
            wanted = hashed(state, xs)
            state, done = wanted[-1], done + len(xs)
            assert (after, y) == (done, wanted), session.id
            moved[session.id, after] = (xs, y)
        assert (*state_of(session), session.step) == (state, done, done)
    return moved


def check_told(calls: list[Call], moved: Moved, met: Counter[str]) -> None:
    """Every client was told what had moved its session, or an error that has its cause in its own call."""
    owners: Counter[tuple[str, int]] = Counter()
    for call in calls:
        met[f"{call.transport} {'gave up' if call.told is None else 'told'}"] += 1
        everything = [x for xs in call.xs for x in xs]
        for id, xs, number, told in call.rows():
            if "code" in told:
                met[told["code"]] += 1
                causes = {
                    "bad_request": POISON in everything,
                    "state_not_finite": SPOIL in xs,
                    "step_mismatch": number is not None,
                    "session_queue_full": True,
                }
                assert causes[told["code"]], (call, told)
                continue
            y = np.ravel(told["outputs"]["y"]).tolist()
            assert moved[id, told["step"]] == (xs, y), call
            met["replayed"] += "replayed" in told
            owners[id, told["step"]] += number is None
    assert max(owners.values()) == 1, "two calls that were not numbered were told the same step"


async def play(loop: VirtualLoop, seed: int, met: Counter[str]) -> None:
    random = Random(seed)
    world = World(Runner(Random(seed + 1)), in_flight=random.choice([1, 2, 3]), session_queue_steps=8)
    ids = await world.open_some("s", SESSIONS)
    players = [Player(world, kind, Random(f"{seed} {n}"), ids) for n, kind in enumerate(KINDS)]
    await asyncio.gather(*(player.play() for player in players))
    await world.check_empty()
    moved = check_chains(world)
    check_told([call for player in players for call in player.calls], moved, met)


@cache
def met_by(seed: int) -> Counter[str]:
    """Play a seed, once; the outcomes that its calls had."""
    met: Counter[str] = Counter()
    run(lambda loop: play(loop, seed, met))
    return met


@pytest.mark.parametrize("seed", SEEDS)
def test_sessions_are_what_their_clients_were_told_whatever_transport_they_came_by(seed):
    assert met_by(seed)


def test_the_seeds_together_meet_every_outcome():
    met = sum(map(met_by, SEEDS), Counter())
    transports = ["http step", "http scan", "http many", "socket", "grpc step", "grpc scan", "grpc many", "stream"]
    wanted = [f"{transport} {end}" for transport in transports for end in ("told", "gave up")]
    wanted += ["replayed", "bad_request", "state_not_finite", "step_mismatch", "session_queue_full"]
    assert not [name for name in wanted if not met[name]], met
