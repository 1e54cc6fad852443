"""States that are copied, kept and put back, and ids that are opened twice."""

import asyncio

import numpy as np
import pytest

from sluice.wire.envelope import SavedState, open_envelope, seal
from tests.gateway.here import Adder, Gate, Here, eventually, refused, running

BYTES = {"content-type": "application/octet-stream"}


async def state_of(here: Here, id: str) -> bytes:
    response = await here.http.get(f"/v1/sessions/{id}/state")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["sluice-session"] == id
    return response.content


async def put(here: Here, id: str, envelope: bytes):
    return await here.http.put(f"/v1/sessions/{id}/state", content=envelope, headers=BYTES)


async def put_back(here: Here, adder: Adder, id: str, envelope: bytes, *, opened: bool) -> Adder:
    """Put `adder`'s state into session `id`; who goes on from there."""
    response = await put(here, id, envelope)
    assert (response.status_code, response.headers["sluice-session"]) == (201 if opened else 200, id)
    assert response.json().keys() == {"session", "model", "version", "step", "expires_at"}
    assert (response.json()["session"], response.json()["step"]) == (id, adder.steps)
    return Adder(here.http, id, [*adder.total], adder.steps)


def saved(model="sum", version=1, step=3, **state) -> bytes:
    return seal(SavedState(model, version, step, state or {"h": np.array([5, 7], np.float32)}))


# Forks.


async def fork(here: Here, adder: Adder, **body: object) -> Adder:
    response = await here.http.post(f"/v1/sessions/{adder.id}:fork", json=body)
    assert response.status_code == 201, response.text
    assert response.json()["step"] == adder.steps
    assert response.headers["sluice-session"] == response.json()["session"]
    return Adder(here.http, response.json()["session"], [*adder.total], adder.steps)


async def test_a_fork_goes_on_from_its_parents_step_and_by_itself(here):
    parent = await here.open()
    await parent.goes_on((1, 2))
    await parent.goes_on((3, 4))
    child = await fork(here, parent, session="child")
    assert child.id == "child"
    for n in range(3):
        await asyncio.gather(parent.goes_on((n, 1)), child.goes_on((-n, 2)))
    await here.http.delete(f"/v1/sessions/{parent.id}")
    await child.goes_on()
    grandchild = await fork(here, child)
    assert grandchild.id.startswith(f"s-{here.gateway.sessions.generation}-")
    await asyncio.gather(grandchild.goes_on((9, 9)), child.goes_on())


async def test_a_fork_is_opened_without_a_body_too(here):
    parent = await here.open()
    response = await here.http.post(f"/v1/sessions/{parent.id}:fork")
    assert response.status_code == 201


async def test_a_fork_keeps_how_long_its_parent_may_be_idle(here):
    parent = await here.open(ttl_s=1000)
    child = await fork(here, parent)
    session = here.gateway.engine.scheduler.sessions.get(child.id)
    assert session.ttl_s == 1000


async def test_steps_that_wait_do_not_count_for_a_fork(here):
    parent = await here.open()
    await parent.goes_on((1, 2))
    gate = Gate(here.puppet)
    running = asyncio.create_task(parent.step((10, 10)))
    await here.puppet.until_running(1)
    child = await fork(here, parent)
    gate.open()
    assert (await running).json() == parent.added((10, 10))
    await asyncio.gather(parent.goes_on(), child.goes_on())


async def test_a_fork_repeats_nothing_of_its_parent(here):
    parent = await here.open()
    await parent.goes_on((1, 2))
    child = await fork(here, parent)
    refused(await child.step((1, 2), step=0), 409, "step_mismatch")
    assert (await parent.step((1, 2), step=0)).headers["sluice-replayed"] == "true"
    await child.goes_on()


async def test_a_fork_that_cannot_be_is_refused(puppet):
    async with running(puppet, sessions_per_model=2) as here:
        parent, other = await here.adders(2)
        url = f"/v1/sessions/{parent.id}:fork"
        refused(await here.http.post(url, json={"session": other.id}), 409, "session_exists")
        refused(await here.http.post(url, json={"session": parent.id}), 409, "session_exists")
        refused(await here.http.post(url, json={"session": "a b"}), 400, "bad_request")
        refused(await here.http.post(url, json={"sesion": "a"}), 400, "bad_request")
        refused(await here.http.post(url, json={}), 503, "sessions_full")
        refused(await here.http.post("/v1/sessions/nobody:fork"), 404, "session_not_found")
        await here.http.delete(f"/v1/sessions/{other.id}")
        refused(await here.http.post(f"/v1/sessions/{other.id}:fork"), 410, "session_closed")
        here.gateway.draining = True
        refused(await here.http.post(url, json={}), 503, "draining")
        await parent.goes_on()


# Saved states.


async def test_a_state_that_is_put_back_goes_on_where_it_was(here):
    adder = await here.open()
    await adder.goes_on((1, 2))
    envelope = await state_of(here, adder.id)
    then = Adder(here.http, adder.id, [*adder.total], adder.steps)
    await adder.goes_on((100, 100))
    other = await put_back(here, then, "other", envelope, opened=True)
    await asyncio.gather(adder.goes_on(), other.goes_on())
    back = await put_back(here, then, adder.id, envelope, opened=False)
    await asyncio.gather(back.goes_on((5, 5)), other.goes_on((6, 6)))


async def test_a_state_outlives_its_gateway(puppet):
    async with running(puppet) as first:
        adder = await first.open(session="station-7")
        await adder.goes_on((1, 2))
        envelope = await state_of(first, "station-7")
    async with running(puppet) as second:
        again = await put_back(second, adder, "station-7", envelope, opened=True)
        await again.goes_on()


async def test_a_state_says_what_it_is(here):
    adder = await here.open()
    await adder.goes_on((1, 2))
    state = open_envelope(await state_of(here, adder.id))
    assert (state.model, state.version, state.step) == ("sum", 1, 1)
    assert {name: row.tolist() for name, row in state.state.items()} == {"h": [1, 2]}


async def test_a_state_that_is_put_back_forgets_the_last_call(here):
    adder = await here.open()
    await adder.goes_on((1, 2))
    envelope = await state_of(here, adder.id)
    assert (await put(here, adder.id, envelope)).status_code == 200
    refused(await adder.step((1, 2), step=0), 409, "step_mismatch")
    await adder.goes_on()


async def test_an_ended_id_can_be_given_a_state(here):
    adder = await here.open()
    await adder.goes_on()
    envelope = await state_of(here, adder.id)
    await here.http.delete(f"/v1/sessions/{adder.id}")
    refused(await here.http.get(f"/v1/sessions/{adder.id}/state"), 410, "session_closed")
    await (await put_back(here, adder, adder.id, envelope, opened=True)).goes_on()


async def test_every_byte_of_a_state_counts(here):
    adder = await here.open()
    await adder.goes_on()
    envelope = await state_of(here, adder.id)
    broken = [envelope[:at] for at in range(len(envelope))] + [envelope + b"\0"]
    broken += [envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :] for at in range(len(envelope))]
    forgiven = []
    for at, each in enumerate(broken):
        response = await put(here, adder.id, each)
        if response.status_code == 200:
            forgiven.append(at - len(envelope) - 1)
        else:
            refused(response, 400, "bad_request")
    assert forgiven in ([], [7])  # the byte that is kept free
    await adder.goes_on()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"SLUICE", b"SLUICE\1\0" + b"\0" * 16, b"\x93NUMPY" * 99, b"\0" * 9999]
)
async def test_bytes_that_are_no_state_are_refused(here, content):
    adder = await here.open()
    refused(await put(here, adder.id, content), 400, "bad_request")
    refused(await put(here, "new", content), 400, "bad_request")
    refused(await here.http.get("/v1/sessions/new"), 404, "session_not_found")
    await adder.goes_on()


STATE = np.array([5, 7], np.float32)
INCOMPATIBLE = {
    "another model": saved("halves", h=np.zeros(2, np.float32)),
    "a model that is not served": saved("nothing"),
    "a model without a contract": saved("plain"),
    "another version": saved(version=2),
    "no version": saved(version=0),
    "another name": saved(g=STATE),
    "one state too many": saved(h=STATE, g=STATE),
    "another width": saved(h=np.zeros(3, np.float32)),
    "another rank": saved(h=np.zeros((1, 2), np.float32)),
    "another dtype": saved(h=np.zeros(2, np.float64)),
    "text": saved(h=np.array([b"a", b"b"], object)),
    "no states": seal(SavedState("sum", 1, 3, {})),
}


@pytest.mark.parametrize("envelope", INCOMPATIBLE.values(), ids=INCOMPATIBLE)
async def test_a_state_of_something_else_is_incompatible_and_changes_nothing(here, envelope):
    adder = await here.open()
    await adder.goes_on()
    for id in (adder.id, "new"):
        response = await put(here, id, envelope)
        assert response.json()["code"] in ("state_incompatible", "unsupported_by_model"), response.text
        assert response.status_code == (409 if response.json()["code"] == "state_incompatible" else 400)
    refused(await here.http.get("/v1/sessions/new"), 404, "session_not_found")
    await adder.goes_on()


async def test_a_state_of_another_version_than_the_sessions_is_incompatible(puppet):
    async with running(puppet) as here:
        old = await here.open()
        await old.goes_on()
        envelope = await state_of(here, old.id)
        puppet.versions["sum"] = [1, 2]
        await eventually(lambda: 2 in here.gateway.catalog.models["sum"].served)
        new = await here.open()
        body = refused(await put(here, new.id, envelope), 409, "state_incompatible")
        assert "version 1" in body["error"] and "version 2" in body["error"]
        await asyncio.gather(old.goes_on(), new.goes_on())
        third = await put_back(here, Adder(here.http, "x", [3, 5], 1), "third", envelope, opened=True)
        assert (await third.view())["version"] == "1"
        puppet.versions["sum"] = [2]
        await eventually(lambda: 1 not in here.gateway.catalog.models["sum"].served)
        refused(await put(here, "fourth", envelope), 409, "state_incompatible")
        await new.goes_on()


async def test_a_state_is_not_put_under_steps_that_wait_or_run(here):
    adder = await here.open()
    await adder.goes_on((1, 2))
    envelope = await state_of(here, adder.id)
    gate = Gate(here.puppet)
    running = asyncio.create_task(adder.step((10, 10)))
    await here.puppet.until_running(1)
    assert "1 steps" in refused(await put(here, adder.id, envelope), 409, "session_conflict")["error"]
    gate.open()
    assert (await running).json() == adder.added((10, 10))
    await adder.goes_on()
    assert (await put(here, adder.id, envelope)).status_code == 200


async def test_a_state_that_is_not_finite_is_refused_or_kept_from_clients(here):
    """Such a state cannot have come from here, but a checksum is no proof of that."""
    response = await put(here, "odd", saved(h=np.array([np.nan, 1], np.float32)))
    if response.status_code == 201:
        step = await here.http.post("/v1/sessions/odd:step", json={"inputs": [1, 2]})
        refused(step, 422, "state_not_finite")
    else:
        refused(response, 400, "input_not_finite")


async def test_a_state_needs_an_id_and_room(puppet):
    async with running(puppet, sessions_per_model=1) as here:
        await here.open()
        refused(await put(here, "new", saved()), 503, "sessions_full")
        assert (await put(here, "a b", saved())).status_code == 404
        assert (await put(here, "a" * 129, saved())).status_code == 404
        here.gateway.draining = True
        refused(await put(here, "new", saved()), 503, "draining")
    async with running(puppet, body_bytes=50) as here:
        refused(await put(here, "new", saved()), 413, "body_too_large")


async def test_bfloat16_states_are_kept_too(here):
    id = await here.opened("halves")
    await here.http.post(f"/v1/sessions/{id}:step", json={"inputs": [0.5, 2]})
    envelope = await state_of(here, id)
    assert (await put(here, "copy", envelope)).status_code == 201
    response = await here.http.post("/v1/sessions/copy:step", json={"inputs": [1, 1]})
    assert response.json() == {"outputs": {"total": [1.5, 3]}, "step": 2}


# An id that is open already.


async def again(here: Here, id: str, how: str, **more: object):
    return await here.http.post("/v1/models/sum/sessions", json={"session": id, "if_exists": how, **more})


async def test_an_open_id_is_refused_returned_or_restarted(here):
    adder = await here.open(session="station-7")
    await adder.goes_on()
    refused(await again(here, "station-7", "error"), 409, "session_exists")
    response = await again(here, "station-7", "return")
    assert (response.status_code, response.json()["step"]) == (200, 1)
    await adder.goes_on()
    response = await again(here, "station-7", "restart")
    assert (response.status_code, response.json()["step"]) == (201, 0)
    await Adder(here.http, "station-7").goes_on()


@pytest.mark.parametrize("how", ["error", "return", "restart"])
async def test_an_id_that_is_not_open_is_opened(here, how):
    response = await again(here, "new", how)
    assert (response.status_code, response.json()["step"]) == (201, 0)
    await Adder(here.http, "new").goes_on()


@pytest.mark.parametrize("how", ["return", "restart"])
async def test_without_an_id_one_is_made(here, how):
    made = {(await here.http.post("/v1/models/sum/sessions", json={"if_exists": how})).json()["session"] for _ in "ab"}
    assert len(made) == 2


async def test_steps_of_a_session_that_is_restarted_are_told_that_it_was_closed(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    tasks = [asyncio.create_task(adder.step((9, 9))) for _ in range(3)]

    async def all_wait():
        return await adder.waiting() == 3

    await eventually(all_wait)
    going_on = asyncio.create_task(other.goes_on())
    response = await again(here, adder.id, "restart")
    assert (response.status_code, response.json()["step"]) == (201, 0)
    for task in tasks:
        refused(await task, 410, "session_closed")
    gate.open()
    await going_on
    await Adder(here.http, adder.id).goes_on()


async def test_a_restart_may_begin_with_a_state(here):
    adder = await here.open(session="a")
    await adder.goes_on()
    await again(here, "a", "restart", state={"h": [10, 20]})
    await Adder(here.http, "a", [10, 20]).goes_on()


@pytest.mark.parametrize("how", ["return", "restart"])
async def test_an_id_that_is_open_on_something_else_is_taken(puppet, how):
    async with running(puppet) as here:
        other = await here.opened("halves", session="a")
        refused(await again(here, other, how), 409, "session_exists")
        adder = await here.open(session="b")
        await adder.goes_on()
        puppet.versions["sum"] = [1, 2]
        await eventually(lambda: 2 in here.gateway.catalog.models["sum"].served)
        refused(await again(here, "b", how, version="2"), 409, "session_exists")
        response = await again(here, "b", "return", version="1")
        assert (response.status_code, response.json()["version"]) == (200, "1")
        await adder.goes_on()


@pytest.mark.parametrize("how", ["return", "restart"])
async def test_what_is_wrong_is_refused_before_anything_is_closed(here, how):
    adder = await here.open(session="a")
    await adder.goes_on()
    refused(await again(here, "a", how, state={"h": [1]}), 400, "shape_mismatch")
    refused(await again(here, "a", how, ttl_s=-1), 400, "bad_request")
    refused(await again(here, "a", how, version="9"), 404, "version_not_found")
    refused(await again(here, "a", "perhaps"), 400, "bad_request")
    await adder.goes_on()


async def test_a_gateway_that_stops_returns_sessions_and_restarts_none(here):
    adder = await here.open(session="a")
    await adder.goes_on()
    here.gateway.draining = True
    assert (await again(here, "a", "return")).status_code == 200
    refused(await again(here, "a", "restart"), 503, "draining")
    await adder.goes_on()


async def test_a_restart_finds_room_where_the_old_one_was(puppet):
    async with running(puppet, sessions_per_model=1) as here:
        adder = await here.open(session="a")
        await adder.goes_on()
        assert (await again(here, "a", "restart")).status_code == 201
        await Adder(here.http, "a").goes_on()
