"""Low priority over the doors: every run of such a request yields to others, and the answer is the same."""

from typing import Any

import pytest

from sluice.gateway.core.pending import Terms
from sluice.policy.batch import PRIORITIES, Lane
from tests.gateway.here import running
from tests.gateway.puppet import Puppet

LOW = {"Sluice-Priority": "low"}
CALLS = {
    "rows": ("/v1/models/plain:predict", {"instances": [[n, n] for n in range(20)]}),
    "sequences": ("/v1/models/spans:predict", {"instances": [[[1, 1]] * (1 + n % 8) for n in range(20)]}),
    "in chunks": ("/v1/models/strides:predict", {"instances": [[[1, 1]] * 9] * 3}),
    "generated": ("/v1/models/speller:generate", {"instances": ["abc", "de"]}),
    "with a parameter": (
        "/v2/models/plain/infer",
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "parameters": {"priority": 2}},
    ),
}


@pytest.mark.parametrize("call", CALLS)
async def test_all_batches_of_a_request_of_low_priority_are_and_its_answer_is_as_ever(
    puppet: Puppet, call: str
) -> None:
    path, body = CALLS[call]
    async with running(puppet) as here:
        seen: list[bool] = []

        async def note(_: Any) -> None:
            dispatchers = here.gateway.engine.scheduler.dispatchers.values()
            seen.extend(batch.lane.low for dispatcher in dispatchers for batch in dispatcher.running)

        puppet.before = note
        low = await here.http.post(path, json=body, headers=LOW)
        assert low.status_code == 200, low.text
        assert seen and all(seen)
        seen.clear()
        without = {name: value for name, value in body.items() if name != "parameters"}
        assert (await here.http.post(path, json=without)).json() == low.json()
        assert seen and not any(seen)


async def test_steps_of_low_priority_yield_too_and_parts_of_a_request_run_together_while_nobody_else_comes(
    puppet: Puppet,
) -> None:
    async with running(puppet) as here:
        ids = [await here.opened("sum") for _ in range(20)]
        body = {"sessions": ids, "inputs": [[n, n] for n in range(20)]}
        answer = await here.http.post("/v1/models/sum/sessions:step", json=body, headers=LOW)
        assert answer.json()["outputs"]["total"] == [[n, n] for n in range(20)]
        await here.http.post(*CALLS["rows"][:1], json=CALLS["rows"][1], headers=LOW)
    assert puppet.batches == [("step", 20), ("serving_default", 20)]


def test_terms_say_in_which_lane_and_in_what_parts_a_call_runs() -> None:
    lane = Lane("m", 1, "a")
    ordinary, low, exact = Terms(1.0), Terms(1.0, PRIORITIES["low"]), Terms(1.0, PRIORITIES["low"], exact=True)
    assert ordinary.lane(lane) is lane
    assert low.lane(lane) == lane._replace(low=True)
    assert exact.lane(lane) == lane._replace(low=True, exact=True)
    assert [each.part(128, 4096) for each in (ordinary, low, exact)] == [128, 8, 4096]
    assert low.part(2, 4096) == 2
    assert not Terms(1.0, PRIORITIES["high"]).low
