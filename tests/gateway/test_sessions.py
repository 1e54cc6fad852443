"""Sessions over HTTP: opening, stepping, numbering, ending, and each way of being refused."""

import asyncio

import pytest

from tests.gateway.here import Gate, eventually, refused, running


async def test_a_session_adds_up_what_it_is_sent(here):
    adder = await here.open(session="station-7")
    for x in [(1, 2), (0.5, -1), (1e-3, 3)]:
        response = await adder.step(x)
        assert response.headers["sluice-session"] == "station-7"
        assert response.json()["outputs"]["total"] == pytest.approx(adder.added(x)["outputs"]["total"])


async def test_opening_answers_with_what_was_opened(here):
    response = await here.http.post("/v1/models/sum/sessions", json={"session": "a"})
    body = response.json()
    assert response.headers["sluice-session"] == "a"
    assert body.keys() == {"session", "model", "version", "step", "expires_at"}
    assert (body["session"], body["model"], body["version"], body["step"]) == ("a", "sum", "1", 0)
    view = (await here.http.get("/v1/sessions/a")).json()
    assert view.keys() == {
        "session", "model", "version", "step", "waiting", "opened_at", "last_used_at", "expires_at", "state_bytes",
    }  # fmt: skip
    assert view["state_bytes"] == 8


async def test_a_session_may_begin_with_a_state_of_its_own(here):
    adder = await here.open(state={"h": [10, 20]})
    adder.total = [10, 20]
    await adder.goes_on()
    response = await here.http.post("/v1/models/sum/sessions", json={"state": {"h": [1, 2, 3]}})
    sentence = refused(response, 400, "shape_mismatch")["error"]
    assert sentence == "State 'h' takes float32 [state=2]; a value of shape [3] came."
    response = await here.http.post("/v1/models/sum/sessions", json={"state": {"wrong": [1, 2]}})
    assert "'wrong'" in refused(response, 400, "unknown_input")["error"]


async def test_a_scan_is_as_many_steps(here):
    stepper, scanner = await here.adders(2)
    xs = [[1, 2], [3, 4], [5, 6]]
    answer = (await scanner.scan(xs)).json()
    totals = [(await stepper.step(x)).json()["outputs"]["total"] for x in xs]
    assert answer == {"outputs": {"total": totals, "doubled": [[2 * a, 2 * b] for a, b in totals]}, "step": 3}
    scanner.total, scanner.steps = totals[-1], 3
    await scanner.goes_on()


async def test_only_the_outputs_asked_for_come(here):
    adder = await here.open()
    assert (await adder.step((1, 2), outputs=["doubled"])).json() == {"outputs": {"doubled": [2, 4]}, "step": 1}


async def test_inputs_may_be_named(here):
    adder = await here.open()
    assert (await adder.step({"x": [1, 2]})).json() == adder.added((1, 2))


async def test_steps_of_one_session_run_in_order_of_arrival(here):
    gate = Gate(here.puppet)
    adder = await here.open()
    tasks = []
    for n in range(5):
        tasks.append(asyncio.create_task(adder.step((10**n, n))))
        await eventually(lambda n=n: _waits(adder, n + 1))
    gate.open()
    for n, response in enumerate(await asyncio.gather(*tasks)):
        assert response.json() == adder.added((10**n, n))


async def _waits(adder, count):
    return await adder.waiting() == count


async def test_steps_of_many_sessions_share_batches(here):
    adders = await here.adders(20)
    await asyncio.gather(*(adder.goes_on((n, n)) for n, adder in enumerate(adders)))
    assert len(here.puppet.batches) < 10
    assert sum(rows for _, rows in here.puppet.batches) >= 20


async def test_an_unknown_session_is_not_found(here):
    for method, path in [("POST", ":step"), ("POST", ":scan"), ("GET", ""), ("DELETE", ""), ("POST", ":renew")]:
        body = {"inputs": [1, 2]} if path in (":step", ":scan") else None
        response = await here.http.request(method, f"/v1/sessions/nobody{path}", json=body)
        assert "nobody" in refused(response, 404, "session_not_found")["error"]
        assert response.headers["sluice-session"] == "nobody"


async def test_a_closed_session_says_so(here):
    other, adder = await here.adders(2)
    response = await here.http.delete(f"/v1/sessions/{adder.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["sluice-session"] == adder.id
    refused(await adder.step(), 410, "session_closed")
    refused(await adder.scan([[1, 2]]), 410, "session_closed")
    refused(await here.http.delete(f"/v1/sessions/{adder.id}"), 410, "session_closed")
    refused(await here.http.get(f"/v1/sessions/{adder.id}"), 410, "session_closed")
    await other.goes_on()


async def test_a_closed_id_can_be_opened_again_from_the_beginning(here):
    adder = await here.open(session="again")
    await adder.goes_on()
    await here.http.delete("/v1/sessions/again")
    await (await here.open(session="again")).goes_on()


async def test_closing_tells_the_steps_that_wait_and_run(here):
    gate = Gate(here.puppet)
    other, adder = await here.adders(2)
    tasks = [asyncio.create_task(adder.step()) for _ in range(3)]
    going_on = asyncio.create_task(other.goes_on())
    await eventually(lambda: _waits(adder, 3))
    await here.http.delete(f"/v1/sessions/{adder.id}")
    for response in await asyncio.gather(*tasks):
        refused(response, 410, "session_closed")
    gate.open()
    await going_on
    await other.goes_on()


async def test_a_new_session_in_the_place_of_a_closed_one_is_not_touched_by_its_late_answer(puppet):
    async with running(puppet, sessions_per_model=1) as here:
        gate = Gate(puppet)
        adder = await here.open()
        task = asyncio.create_task(adder.step((7, 7)))
        await puppet.until_running(1)
        await here.http.delete(f"/v1/sessions/{adder.id}")
        successor = await here.open()
        gate.open()
        refused(await task, 410, "session_closed")
        await successor.goes_on()
        await successor.goes_on()


async def test_an_idle_session_expires(puppet):
    async with running(puppet, session_idle_s=0.05) as here:
        adder, other = await here.open(), await here.open(ttl_s=1000)
        sessions = here.gateway.engine.scheduler.sessions
        await eventually(lambda: sessions.find(adder.id) is None)
        assert "expired" in refused(await adder.step(), 410, "session_expired")["error"]
        await other.goes_on()


async def test_a_renewed_session_lives_on_and_may_be_cut_short(puppet):
    async with running(puppet, session_idle_s=0.5) as here:
        adder, canary = await here.adders(2)
        response = await here.http.post(f"/v1/sessions/{adder.id}:renew", json={"ttl_s": 600})
        assert response.status_code == 200 and response.headers["sluice-session"] == adder.id
        sessions = here.gateway.engine.scheduler.sessions
        await eventually(lambda: sessions.find(canary.id) is None)
        await adder.goes_on()
        await here.http.post(f"/v1/sessions/{adder.id}:renew", json={"ttl_s": 1e-300})
        await eventually(lambda: sessions.find(adder.id) is None)
        refused(await adder.step(), 410, "session_expired")


async def test_a_session_that_steps_does_not_expire_for_being_idle(puppet):
    async with running(puppet, session_idle_s=0.5) as here:
        gate = Gate(puppet)
        adder, canary = await here.adders(2)
        task = asyncio.create_task(adder.goes_on())
        await eventually(lambda: here.gateway.engine.scheduler.sessions.find(canary.id) is None)
        gate.open()
        await task


async def test_a_session_does_not_outlive_its_total_life(puppet):
    async with running(puppet, session_life_s=0.05) as here:
        Gate(puppet)
        adder = await here.open()
        refused(await adder.step(), 410, "session_expired")


async def test_the_longest_idle_session_is_evicted_where_that_is_set(puppet):
    async with running(puppet, sessions_per_model=2, session_evict=True) as here:
        first, second = await here.adders(2)
        await first.goes_on()
        third = await here.open()
        refused(await second.step(), 410, "session_evicted")
        await first.goes_on()
        await third.goes_on()


async def test_an_open_id_is_taken(here):
    adder = await here.open(session="taken")
    await adder.goes_on()
    response = await here.http.post("/v1/models/sum/sessions", json={"session": "taken"})
    refused(response, 409, "session_exists")
    await adder.goes_on()


async def test_an_id_of_an_earlier_run_is_lost_and_a_clients_own_is_not_found(here):
    made = (await here.open()).id
    assert made.startswith(f"s-{here.gateway.sessions.generation}-")
    earlier = made.replace(here.gateway.sessions.generation, "19a0b1c2d3e")
    refused(await here.http.get(f"/v1/sessions/{earlier}"), 410, "session_lost")
    response = await here.http.post(f"/v1/sessions/{earlier}:step", json={"inputs": [1, 2]})
    refused(response, 410, "session_lost")
    for own in ("s-7", "s-tation", "s-", "station-7", made[:-1] + "x"):
        refused(await here.http.get(f"/v1/sessions/{own}"), 404, "session_not_found")


async def test_a_full_model_opens_no_more_sessions(puppet):
    async with running(puppet, sessions_per_model=2) as here:
        first, second = await here.adders(2)
        response = await here.http.post("/v1/models/sum/sessions", json={})
        assert refused(response, 503, "sessions_full")["details"] == {"limit": 2}
        await first.goes_on()
        await here.http.delete(f"/v1/sessions/{second.id}")
        await (await here.open()).goes_on()


async def test_a_full_queue_refuses_at_once(puppet):
    async with running(puppet, queue_rows=2, in_flight=1) as here:
        gate = Gate(puppet)
        adders = await here.adders(4)
        running_one = asyncio.create_task(adders[0].goes_on())
        await puppet.until_running(1)
        waiting = [asyncio.create_task(adder.goes_on()) for adder in adders[1:3]]
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sum"].waiting_rows == 2)
        assert refused(await adders[3].step(), 429, "queue_full")["details"] == {"limit": 2}
        gate.open()
        await asyncio.gather(running_one, *waiting)
        await adders[3].goes_on()


async def test_a_session_may_have_so_many_steps_waiting(puppet):
    async with running(puppet, session_queue_steps=2) as here:
        gate = Gate(puppet)
        adder, other = await here.adders(2)
        tasks = [asyncio.create_task(adder.step((1, 1))) for _ in range(2)]
        await eventually(lambda: _waits(adder, 2))
        assert refused(await adder.step(), 429, "session_queue_full")["details"] == {"limit": 2}
        going_on = asyncio.create_task(other.goes_on())
        gate.open()
        for response in await asyncio.gather(*tasks):
            assert response.json() == adder.added((1, 1))
        await going_on
        await adder.goes_on()


async def test_a_numbered_step_is_answered_again_without_running(here):
    adder = await here.open()
    first = await adder.step((1, 2), step=0)
    assert first.json() == adder.added((1, 2))
    assert "sluice-replayed" not in first.headers
    ran = len(here.puppet.batches)
    again = await adder.step((1, 2), step=0)
    assert (again.json(), again.headers["sluice-replayed"]) == (first.json(), "true")
    assert len(here.puppet.batches) == ran
    await adder.goes_on()


async def test_a_numbered_scan_is_answered_again_without_running(here):
    adder = await here.open()
    first = await adder.scan([[1, 2], [3, 4]], step=0)
    again = await adder.scan([[1, 2], [3, 4]], step=0)
    assert (again.json(), again.headers["sluice-replayed"]) == (first.json(), "true")
    refused(await adder.scan([[1, 2], [3, 5]], step=0), 409, "step_mismatch")
    refused(await adder.step((1, 2), step=0), 409, "step_mismatch")


async def test_an_unnumbered_step_can_be_repeated_by_its_number_too(here):
    adder = await here.open()
    await adder.goes_on((1, 2))
    assert (await adder.step((1, 2), step=0)).headers["sluice-replayed"] == "true"


@pytest.mark.parametrize("number", [0, 1, 3, 10**6, 2**63])
async def test_another_number_than_the_current_one_is_a_mismatch(here, number):
    adder = await here.open()
    await adder.goes_on((1, 1))
    await adder.goes_on((1, 1))
    body = refused(await adder.step((8, 8), step=number), 409, "step_mismatch")
    assert body["details"] == {"current": 2}
    assert (await adder.step((3, 3), step=2)).json() == adder.added((3, 3))


async def test_the_same_numbered_step_sent_twice_at_once_runs_once(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    tasks = [asyncio.create_task(adder.step((1, 2), step=0)) for _ in range(3)]
    await eventually(lambda: _waits(adder, 3))
    gate.open()
    answers = await asyncio.gather(*tasks)
    assert [answer.json() for answer in answers] == [adder.added((1, 2))] * 3
    assert sorted(answer.headers.get("sluice-replayed", "") for answer in answers) == ["", "true", "true"]
    await adder.goes_on()
    await other.goes_on()


async def test_sessions_are_listed_page_by_page(here):
    ids = [(await here.open(session=f"id-{n}")).id for n in (3, 1, 2, 5, 4)]
    pages, after = [], ""
    while True:
        page = (await here.http.get("/v1/models/sum/sessions", params={"limit": 2, "after": after})).json()
        pages.append([each["session"] for each in page["sessions"]])
        if "next" not in page:
            break
        after = page["next"]
    assert pages == [["id-1", "id-2"], ["id-3", "id-4"], ["id-5"]]
    whole = (await here.http.get("/v1/models/sum/sessions")).json()
    assert [each["session"] for each in whole["sessions"]] == sorted(ids)
    assert "next" not in whole


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}])
async def test_a_page_has_a_sensible_size(here, query):
    response = await here.http.get("/v1/models/sum/sessions", params=query)
    assert "limit" in refused(response, 400, "bad_request")["error"]


async def test_a_model_without_a_contract_holds_no_sessions(here):
    response = await here.http.post("/v1/models/plain/sessions", json={})
    assert "sluice export" in refused(response, 400, "unsupported_by_model")["error"]


async def test_an_unknown_model_or_version_is_not_found(here):
    response = await here.http.post("/v1/models/nothing/sessions", json={})
    assert "'nothing'" in refused(response, 404, "model_not_found")["error"]
    response = await here.http.post("/v1/models/sum/sessions", json={"version": "9"})
    assert "version 9" in refused(response, 404, "version_not_found")["error"]


async def test_a_gateway_that_stops_opens_no_sessions_and_finishes_the_others(here):
    adder = await here.open()
    here.gateway.draining = True
    refused(await here.http.post("/v1/models/sum/sessions", json={}), 503, "draining")
    await adder.goes_on()
    response = await here.http.get("/readyz")
    assert (response.status_code, response.json()["reason"]) == (503, "the gateway is stopping")


async def test_sessions_stay_on_their_version_until_it_goes(puppet):
    async with running(puppet) as here:
        old = await here.open()
        await old.goes_on()
        puppet.versions["sum"] = [1, 2]
        await eventually(lambda: 2 in here.gateway.catalog.models["sum"].served)
        new, chosen = await here.open(), await here.open(version="1")
        assert [(await each.view())["version"] for each in (old, new, chosen)] == ["1", "2", "1"]
        await asyncio.gather(old.goes_on(), new.goes_on(), chosen.goes_on())
        puppet.versions["sum"] = [2]
        await eventually(lambda: 1 not in here.gateway.catalog.models["sum"].served)
        for gone in (old, chosen):
            refused(await gone.step(), 410, "session_version_gone")
        await new.goes_on()


async def test_steps_that_wait_are_told_that_their_version_is_gone(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        old = await here.open()
        tasks = [asyncio.create_task(old.step()) for _ in range(2)]
        await eventually(lambda: _waits(old, 2))
        puppet.versions["sum"] = [2]
        for response in await asyncio.gather(*tasks):
            refused(response, 410, "session_version_gone")
        gate.open()
        await (await here.open()).goes_on()


async def test_fields_of_a_new_session_may_be_null(here):
    adder = await here.open(**dict.fromkeys(("session", "version", "label", "state", "ttl_s", "if_exists")))
    await adder.goes_on()
