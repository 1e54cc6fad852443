"""Two gateways at one address by mistake: what the clients of one see at the other, as docs/sessions.md says it."""

from tests.gateway.here import refused, running


async def test_a_session_of_one_gateway_is_not_at_the_other_and_no_state_is_mixed_up(puppet, here):
    async with running(puppet) as other:
        made, chosen = await here.open(), await here.open(session="station-7")
        await made.goes_on()
        await chosen.goes_on()
        step = {"inputs": [1, 2]}
        refused(await other.http.post(f"/v1/sessions/{made.id}:step", json=step), 410, "session_lost")
        refused(await other.http.post("/v1/sessions/station-7:step", json=step), 404, "session_not_found")
        await made.goes_on()  # nothing has happened to it
        rows = {"instances": [[1, 2]]}
        for each in (here, other):
            assert (await each.http.post("/v1/models/plain:predict", json=rows)).json() == {"predictions": [[2.0, 4.0]]}


async def test_one_id_at_two_gateways_is_two_sessions_which_a_numbered_step_finds_out(puppet, here):
    async with running(puppet) as other:
        first = await here.open(session="station-7", if_exists="return")
        second = await other.open(session="station-7", if_exists="return")
        await first.goes_on()
        await first.goes_on()
        await second.goes_on()  # another state, from its beginning
        response = await second.step((1, 2), step=2)  # the number that is next in the first
        assert refused(response, 409, "step_mismatch")["details"]["current"] == 1
