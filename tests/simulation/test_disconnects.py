"""One of several HTTP clients closes its connection at every turn of the loop, seen from the socket's side.

Requests come in one piece or in many; what is written to a connection that was lost nobody reads.
"""

import asyncio
from typing import Any

import pytest

from .doors import HttpClient, Told, World
from .loop import VirtualLoop, run
from .model import INITIAL, MODEL, doubled, hashed
from .test_cancellation import TurningRunner

CALLS = {"step": [11], "scan": [11, 12, 13], "predict": [11, 12, 13, 14, 15], "many": [11, 12, 13, 14, 15]}
MATES = 2
OWN = 5  # sessions of a client; more than the largest batch holds


class Asker:
    """One client with sessions of its own, and the one call that it makes."""

    def __init__(self, world: World, call: str, ids: list[str]) -> None:
        self.http = HttpClient(world)
        self.told: asyncio.Future[Told] | None = None
        self._call, self._ids = call, ids

    def ask(self, pieces: int = 1) -> "asyncio.Future[Told]":
        self.told = self.http.call(*self._request(), pieces=pieces)
        return self.told

    def _request(self) -> tuple[str, dict[str, Any]]:
        xs, numbered = CALLS[self._call], {"step": 0}
        match self._call:
            case "predict":
                return f"/v1/models/{MODEL}:predict", {"signature_name": "rows", "instances": xs}
            case "many":
                body = {"sessions": self._ids, "inputs": xs, "steps": [0] * len(xs)}
                return f"/v1/models/{MODEL}/sessions:step", body
            case "step":
                return f"/v1/sessions/{self._ids[0]}:step", {"inputs": xs[0], **numbered}
            case _:
                return f"/v1/sessions/{self._ids[0]}:scan", {"inputs": xs, **numbered}

    def right(self, told: Told) -> bool:
        xs = CALLS[self._call]
        told = {name: value for name, value in told.items() if name != "replayed"}
        outputs = hashed(INITIAL, xs)
        match self._call:
            case "predict":
                return told == {"predictions": doubled(xs)}
            case "many":
                each = [hashed(INITIAL, [x])[0] for x in xs]
                return told == {"outputs": {"y": each}, "steps": [1] * len(xs), "errors": [None] * len(xs)}
            case call:
                return told == {"outputs": {"y": outputs if call == "scan" else outputs[0]}, "step": len(xs)}


def has_moved(world: World, ids: list[str]) -> set[bool]:
    return {world.gateway.sessions.get(id).step > 0 for id in ids}


async def play(loop: VirtualLoop, call: str, position: int, pieces: int, leave_at: int | None) -> tuple[int, str]:
    """How many turns it took, and what became of the client that left."""
    world = World(TurningRunner(deaths=0))
    used = OWN if call == "many" else 1
    ids = [await world.open_some(f"c{n}", used) for n in range(MATES + 1)]
    askers = [Asker(world, call, own) for own in ids]
    victim, start = askers[position], loop.turn

    def on_turn(turn: int) -> None:
        if leave_at is not None and turn - start == leave_at:
            victim.http.leave()

    loop.on_turn = on_turn
    for asker in askers:
        asker.ask(pieces if asker is victim else 1)
    await asyncio.wait([asker.told for asker in askers if asker.told is not None])
    while leave_at is not None and loop.turn - start <= leave_at:
        await asyncio.sleep(0)
    turns = loop.turn - start
    loop.on_turn = None
    for asker in askers:
        asker.http.leave()
    await world.check_empty()
    heard = victim.told is not None and not victim.told.cancelled()
    for asker in askers:
        assert asker.told is not None
        assert (not heard and asker is victim) or asker.right(asker.told.result())
    moved = has_moved(world, ids[position])
    assert len(moved) == 1 or call == "many"
    again = Asker(world, call, ids[position])
    told = await again.ask()
    assert again.right(told)
    if call in ("step", "scan"):
        assert ("replayed" in told) == (moved == {True})
    again.http.leave()
    await world.check_empty()
    return turns, f"{'told' if heard else 'left'}, {'moved' if True in moved else 'not moved'}"


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("position", [0, MATES])
@pytest.mark.parametrize("call", list(CALLS))
def test_a_client_that_leaves_at_any_turn_harms_nobody(call, position, pieces):
    turns, _ = run(lambda loop: play(loop, call, position, pieces, None))
    met = set()
    for leave_at in range(1, turns + 2):
        try:
            met.add(run(lambda loop, at=leave_at: play(loop, call, position, pieces, at))[1])
        except AssertionError as error:
            raise AssertionError(f"left at turn {leave_at}: {error}") from error
    # The answer is written in the turn in which the state moves, or in the one after it.
    assert met >= ({"told, not moved"} if call == "predict" else {"told, moved"}) | {"left, not moved"}
    assert met <= {"told, moved", "told, not moved", "left, not moved", "left, moved"}
    assert ("told, not moved" in met) == (call == "predict")
