"""One step of many sessions in one call: a column of answers, and what is wrong with one row is that row's own."""

import asyncio

import grpc
import numpy as np
import pytest

from sluice.wire.tensors import read_tensor
from tests.gateway.here import Adder, Gate, Here, eventually, refused, running
from tests.gateway.test_faults import spoiled


def answered(adders: list[Adder], xs: list[tuple[float, float]]) -> dict[str, object]:
    """What the call must answer; from now on these steps count as done."""
    rows = [adder.added(x) for adder, x in zip(adders, xs, strict=True)]
    return {
        "outputs": {name: [row["outputs"][name] for row in rows] for name in ("total", "doubled")},
        "steps": [row["step"] for row in rows],
        "errors": [None] * len(rows),
    }


async def step_all(here: Here, adders: list[Adder], xs: list[tuple[float, float]], **more: object) -> None:
    """Step them in one call, which is answered, and rightly."""
    response = await here.columns([adder.id for adder in adders], xs, **more)
    assert response.status_code == 200, response.text
    assert response.json() == answered(adders, xs)


def codes(body: dict[str, list[dict[str, str] | None]]) -> list[str | None]:
    """Each row's error code; a row with an error must have nothing else, and a sentence."""
    for row, error in enumerate(body["errors"]):
        assert (error is not None) == (body["steps"][row] is None)
        assert all((column[row] is None) == (error is not None) for column in body["outputs"].values())
        assert error is None or (error.keys() <= {"error", "code", "details"} and len(error["error"]) > 10)
    return [error and error["code"] for error in body["errors"]]


async def test_many_sessions_step_in_one_call_and_one_batch(here):
    adders = await here.adders(20)
    for start in (0, 100):
        await step_all(here, adders, [(start + n, n) for n in range(20)])
    assert here.puppet.batches == [("step", 20)] * 2
    for adder in adders:
        await adder.goes_on()


async def test_answers_come_by_the_order_of_the_call(here):
    adders = await here.adders(5)
    await step_all(here, adders, [(n, 1) for n in range(5)])
    await step_all(here, adders[::-1], [(n, 1) for n in range(5)])
    await step_all(here, [adders[n] for n in (3, 0, 4)], [(9, n) for n in range(3)])


async def test_more_rows_than_the_largest_batch_are_divided_and_put_together(puppet):
    async with running(puppet, allowed_batch_sizes="1,2,4", in_flight=2) as here:
        adders = await here.adders(11)
        for round in range(3):
            await step_all(here, adders, [(10**round, n) for n in range(11)])
        assert sorted(puppet.batches) == sorted([("step", 4)] * 9)
        await eventually(here.nothing_left)


async def test_sessions_of_several_versions_step_in_one_call(puppet):
    async with running(puppet) as here:
        old = await here.adders(2)
        puppet.versions["sum"] = [1, 2]
        await eventually(lambda: 2 in here.gateway.catalog.models["sum"].served)
        new = await here.adders(2)
        mixed = [old[0], new[0], old[1], new[1]]
        await step_all(here, mixed, [(n, 7) for n in range(4)])
        assert puppet.batches == [("step", 2)] * 2
        puppet.versions["sum"] = [2]
        await eventually(lambda: 1 not in here.gateway.catalog.models["sum"].served)
        body = (await here.columns([adder.id for adder in mixed], [(1, 1)] * 4)).json()
        assert codes(body) == ["session_version_gone", None, "session_version_gone", None]
        assert body["outputs"]["total"][1] == new[0].added((1, 1))["outputs"]["total"]


async def test_only_the_outputs_asked_for_come(here):
    adders = await here.adders(2)
    response = await here.columns([adder.id for adder in adders], [(1, 2), (3, 4)], outputs=["doubled"])
    assert response.json()["outputs"] == {"doubled": [[2, 4], [6, 8]]}
    ended = adders[0]
    await here.http.delete(f"/v1/sessions/{ended.id}")
    body = (await here.columns([ended.id], [(1, 2)], outputs=["doubled"])).json()
    assert body["outputs"] == {"doubled": [None]}


async def test_inputs_may_be_named(here):
    adders = await here.adders(2)
    response = await here.columns([adder.id for adder in adders], {"x": [(1, 2), (3, 4)]})
    assert response.json() == answered(adders, [(1, 2), (3, 4)])


async def test_what_is_wrong_with_one_session_is_its_own_error(here):
    adders = await here.adders(3)
    closed, other = await here.open(), await here.opened("halves")
    await here.http.delete(f"/v1/sessions/{closed.id}")
    ids = [adders[0].id, "nobody", adders[1].id, closed.id, other, adders[2].id, "not an id"]
    response = await here.columns(ids, [(n, 1) for n in range(7)])
    body = response.json()
    found = [None, "session_not_found", None, "session_closed", "bad_request", None, "session_not_found"]
    assert (response.status_code, codes(body)) == (200, found)
    assert "halves" in body["errors"][4]["error"]
    for row, adder in [(0, adders[0]), (2, adders[1]), (5, adders[2])]:
        assert body["outputs"]["total"][row] == adder.added((row, 1))["outputs"]["total"]
        await adder.goes_on()


async def test_a_call_whose_sessions_are_all_unknown_is_answered_with_errors_only(here):
    await here.open()
    body = (await here.columns(["a", "b"], [(1, 2), (3, 4)])).json()
    assert codes(body) == ["session_not_found"] * 2
    assert here.puppet.batches == []


async def test_a_state_that_would_not_be_finite_is_the_error_of_one_row(here):
    adders = await here.adders(4)
    await step_all(here, adders, [(1, n) for n in range(4)])
    here.puppet.twist = spoiled
    body = (await here.columns([adder.id for adder in adders], [(1, 1), (1, 1), (5000, 1), (1, 1)])).json()
    here.puppet.twist = None
    assert codes(body) == [None, None, "state_not_finite", None]
    for row in (0, 1, 3):
        assert body["outputs"]["total"][row] == adders[row].added((1, 1))["outputs"]["total"]
    for adder in adders:
        await adder.goes_on()


async def test_a_row_that_the_model_refuses_fails_its_call_and_moves_nothing(here):
    async def reject(request):
        return grpc.StatusCode.INVALID_ARGUMENT if (read_tensor(request.inputs["x"]) == 666).any() else None

    adders, others = await here.adders(2), await here.adders(2)
    here.puppet.before = reject
    response, _ = await asyncio.gather(
        here.columns([adder.id for adder in adders], [(666, 1), (1, 1)]), step_all(here, others, [(1, 1)] * 2)
    )
    refused(response, 400, "bad_request")
    await step_all(here, adders + others, [(2, 2)] * 4)


async def test_numbered_rows_run_repeat_or_mismatch_by_themselves(here):
    adders = await here.adders(4)
    ids = [adder.id for adder in adders]
    await step_all(here, adders, [(n, 1) for n in range(4)], steps=[0, None, 0, 0])
    await adders[3].goes_on()
    ran = len(here.puppet.batches)
    body = (await here.columns(ids, [(n, 1) for n in range(4)], steps=[0, 1, None, 0])).json()
    assert codes(body) == [None, None, None, "step_mismatch"]
    assert body["errors"][3]["details"] == {"current": 2}
    assert body["steps"][:3] == [1, 2, 2]
    assert body["outputs"]["total"][0] == adders[0].total  # the answer comes again, nothing ran
    for n in (1, 2):
        assert body["outputs"]["total"][n] == adders[n].added((n, 1))["outputs"]["total"]
    assert len(here.puppet.batches) == ran + 1
    for adder in adders:
        await adder.goes_on()


async def test_a_call_that_is_repeated_as_a_whole_runs_once(here):
    adders = await here.adders(5)
    ids, xs = [adder.id for adder in adders], [(n, 1) for n in range(5)]
    first = await here.columns(ids, xs, steps=[0] * 5)
    ran = len(here.puppet.batches)
    again = await here.columns(ids, xs, steps=[0] * 5)
    assert again.json() == first.json() == answered(adders, xs)
    assert len(here.puppet.batches) == ran
    await step_all(here, adders, xs, steps=[1] * 5)


async def test_a_repeat_may_come_by_another_call(here):
    adder, other = await here.adders(2)
    await step_all(here, [adder, other], [(1, 2), (3, 4)])
    again = await adder.step((1, 2), step=0)
    assert again.headers["sluice-replayed"] == "true"
    assert (await other.step((3, 5), step=0)).status_code == 409
    await adder.goes_on((5, 5))
    body = (await here.columns([adder.id, other.id], [(5, 5), (1, 1)], steps=[1, None])).json()
    assert body["outputs"]["total"] == [adder.total, other.added((1, 1))["outputs"]["total"]]


async def test_a_session_that_is_stepped_by_several_calls_at_once_takes_them_in_order_of_arrival(here):
    gate = Gate(here.puppet)
    shared, left, right = await here.adders(3)
    tasks, waiting = [], 0

    async def arrived(count):
        return await shared.waiting() == count

    for n in range(4):
        tasks.append(asyncio.create_task(here.columns([left.id, shared.id], [(n, 1), (10**n, 1)])))
        tasks.append(asyncio.create_task(shared.step((2 * 10**n, 1))))
        waiting += 2
        await eventually(lambda waiting=waiting: arrived(waiting))
    tasks.append(asyncio.create_task(here.columns([shared.id, right.id], [(0, 1), (7, 7)])))
    await eventually(lambda: arrived(waiting + 1))
    gate.open()
    answers = await asyncio.gather(*tasks)
    steps = sorted(
        (body["steps"][1], body["outputs"]["total"][1]) for body in (each.json() for each in answers[0:8:2])
    ) + [(each.json()["step"], each.json()["outputs"]["total"]) for each in answers[1:8:2]]
    assert sorted(step for step, _ in steps) == list(range(1, 9))
    total = np.zeros(2)
    for (step, got), x in zip(sorted(steps), _any_order(dict(steps)), strict=True):
        total += x
        assert got == total.tolist(), step
    shared.total, shared.steps = total.tolist(), 8
    assert answers[8].json()["outputs"]["total"] == [shared.added((0, 1))["outputs"]["total"], [7, 7]]
    left.total, left.steps, right.total, right.steps = [6, 4], 4, [7, 7], 1
    await asyncio.gather(*(each.goes_on() for each in (shared, left, right)))


def _any_order(by_step: dict[int, list[float]]) -> list[np.ndarray]:
    """What was added step by step; each of the eight calls once."""
    totals = np.array([[0, 0], *(by_step[step] for step in sorted(by_step))])
    added = np.diff(totals, axis=0)
    assert sorted(added[:, 0]) == sorted([10**n for n in range(4)] + [2 * 10**n for n in range(4)])
    for n in range(4):  # the calls of one round were sent together, and before those of the next
        assert {10**n, 2 * 10**n} == set(added[2 * n : 2 * n + 2, 0])
    return list(added)


async def test_a_session_that_is_closed_under_a_call_is_told_and_the_others_go_on(here):
    gate = Gate(here.puppet)
    adders = await here.adders(3)
    call = asyncio.create_task(here.columns([adder.id for adder in adders], [(1, n) for n in range(3)]))
    await here.puppet.until_running(1)
    await here.http.delete(f"/v1/sessions/{adders[1].id}")
    gate.open()
    body = (await call).json()
    assert codes(body) == [None, "session_closed", None]
    for n in (0, 2):
        assert body["outputs"]["total"][n] == adders[n].added((1, n))["outputs"]["total"]
        await adders[n].goes_on()


async def test_a_session_with_a_full_queue_is_the_error_of_its_row(puppet):
    async with running(puppet, session_queue_steps=2) as here:
        gate = Gate(puppet)
        full, free = await here.adders(2)

        async def is_full():
            return await full.waiting() == 2

        tasks = [asyncio.create_task(full.step((1, 1))) for _ in range(2)]
        await eventually(is_full)
        call = asyncio.create_task(here.columns([full.id, free.id], [(9, 9), (1, 2)]))
        await puppet.until_running(2)
        gate.open()
        body = (await call).json()
        assert codes(body) == ["session_queue_full", None]
        free.added((1, 2))
        for task in tasks:
            assert (await task).json() == full.added((1, 1))
        await asyncio.gather(full.goes_on(), free.goes_on())


async def test_a_deadline_that_passes_is_the_error_of_the_whole_call(here):
    gate = Gate(here.puppet)
    adders = await here.adders(2)
    body = {"sessions": [adder.id for adder in adders], "inputs": [(1, 1)] * 2}
    response = await here.http.post("/v1/models/sum/sessions:step", json=body, headers={"Sluice-Timeout-Ms": "30"})
    refused(response, 504, "deadline_exceeded")
    gate.open()
    await eventually(here.nothing_left)
    await step_all(here, adders, [(1, 1)] * 2)


async def test_bfloat16_goes_in_and_comes_out(here):
    ids = [await here.opened("halves") for _ in range(2)]
    for step in (1, 2):
        body = (await here.columns(ids, [(0.5, 1), (1.5, 2)], model="halves")).json()
        assert body["outputs"]["total"] == [[0.5 * step, step], [1.5 * step, 2 * step]]


async def test_answers_in_text_cannot_stand_in_a_column(here):
    ids = [await here.opened("words") for _ in range(2)]
    response = await here.columns(ids, ["one", "two"], model="words")
    assert "one by one" in refused(response, 400, "unsupported_by_model")["error"]
    response = await here.http.post(f"/v1/sessions/{ids[0]}:step", json={"inputs": "one"})
    assert response.json() == {"outputs": {"said": "0 one"}, "step": 1}
    response = await here.http.post(f"/v1/sessions/{ids[0]}:step", json={"inputs": "one", "step": 0})
    assert response.headers["sluice-replayed"] == "true"
    response = await here.http.post(f"/v1/sessions/{ids[0]}:step", json={"inputs": "two", "step": 1})
    assert response.json() == {"outputs": {"said": "1 two"}, "step": 2}


MISTAKES = {
    "bad_request": [
        {"sessions": ["A", "A"], "inputs": [[1, 2], [3, 4]]},
        {"sessions": "A", "inputs": [[1, 2]]},
        {"sessions": ["A", 3], "inputs": [[1, 2], [3, 4]]},
        {"sessions": {"A": 1}, "inputs": [[1, 2]]},
        {"inputs": [[1, 2]]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [0]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [0, 0, 0]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [0, -1]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [0, "0"]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [0, 0.0]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": [True, 0]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": 0},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "steps": {}},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "outputs": []},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "outputs": ["h"]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "outputs": "total"},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]], "step": 0},
        {"session": "A", "sessions": ["A", "B"], "inputs": [[1, 2], [3, 4]]},
        [],
        None,
        "text",
    ],
    "missing_input": [{"sessions": ["A", "B"]}, {"sessions": ["A"], "inputs": {}}],
    "empty_input": [{"sessions": [], "inputs": []}, {"sessions": ["A"], "inputs": []}],
    "unknown_input": [{"sessions": ["A"], "inputs": {"y": [[1, 2]]}}],
    "shape_mismatch": [
        {"sessions": ["A", "B"], "inputs": [[1, 2]]},
        {"sessions": ["A"], "inputs": [[1, 2], [3, 4]]},
        {"sessions": ["A", "B"], "inputs": [[1, 2], [3]]},
        {"sessions": ["A", "B"], "inputs": [[1, 2, 3], [4, 5, 6]]},
        {"sessions": ["A", "B"], "inputs": [1, 2]},
    ],
    "dtype_mismatch": [
        {"sessions": ["A"], "inputs": [["a", "b"]]},
        {"sessions": ["A"], "inputs": [[None, 1]]},
        {"sessions": ["A"], "inputs": [[True, 1]]},
    ],
}


@pytest.mark.parametrize(
    ("code", "body"), [(code, each) for code, bodies in MISTAKES.items() for each in bodies], ids=str
)
async def test_a_call_that_is_wrong_as_a_whole_is_refused_and_moves_nothing(here, code, body):
    adders = [await here.open(session=id) for id in "AB"]
    refused(await here.http.post("/v1/models/sum/sessions:step", json=body), 400, code)
    assert here.puppet.batches == []
    await step_all(here, adders, [(1, 2), (3, 4)], steps=[0, 0])


async def test_unknown_fields_are_named(here):
    await here.open(session="A")
    body = refused(await here.columns(["A"], [(1, 2)], sesions=1), 400, "bad_request")
    assert "'sesions'" in body["error"]


async def test_a_value_that_is_not_finite_refuses_the_call(here):
    await here.open(session="A")
    content = b'{"sessions": ["A"], "inputs": [[NaN, 1]]}'
    response = await here.http.post("/v1/models/sum/sessions:step", content=content)
    refused(response, 400, "input_not_finite")


async def test_more_sessions_than_rows_may_wait_are_too_many(puppet):
    async with running(puppet, queue_rows=4, allowed_batch_sizes="1,2") as here:
        adders = await here.adders(5)
        response = await here.columns([adder.id for adder in adders], [(1, 1)] * 5)
        assert refused(response, 413, "batch_too_large")["details"] == {"limit": 4}
        await step_all(here, adders[:4], [(1, 1)] * 4)


async def test_a_full_queue_refuses_the_call_at_once(puppet):
    async with running(puppet, queue_rows=2, in_flight=1) as here:
        gate = Gate(puppet)
        adders = await here.adders(5)
        first = asyncio.create_task(adders[0].goes_on())
        await puppet.until_running(1)
        second = asyncio.create_task(step_all(here, adders[1:3], [(1, 1)] * 2))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sum"].waiting_rows == 2)
        response = await here.columns([adder.id for adder in adders[3:]], [(9, 9)] * 2)
        refused(response, 429, "queue_full")
        gate.open()
        await asyncio.gather(first, second)
        for adder in adders:
            await adder.goes_on()


async def test_an_unknown_model_is_not_found(here):
    refused(await here.columns(["A"], [(1, 1)], model="nothing"), 404, "model_not_found")
    await here.open(session="A")
    refused(await here.columns(["A"], [(1, 1)], model="nothing"), 404, "model_not_found")


async def test_a_gateway_that_has_been_restarted_tells_of_the_sessions_not_that_there_is_no_model(puppet):
    async with running(puppet) as before:
        lost = (await before.open()).id
    async with running(puppet) as here:
        answer = await here.columns([lost, "A"], [(1, 1)] * 2)
        assert [error["code"] for error in answer.json()["errors"]] == [
            (await here.http.get(f"/v1/sessions/{id}")).json()["code"] for id in (lost, "A")
        ]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
async def test_the_path_takes_post_only(here, method):
    response = await here.http.request(method, "/v1/models/sum/sessions:step")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_calls_are_counted_by_outcome_and_tell_of_no_session(here):
    adder = await here.open(session="very-secret-id")
    await step_all(here, [adder], [(1, 2)])
    await here.columns(["very-secret-id"] * 2, [(1, 2)] * 2)
    await here.columns(["very-secret-id"], [(1, 2)], model="made-up")
    metrics = await here.metrics()
    assert metrics['sluice_requests_total{call="step_many",model="sum",outcome="ok"}'] == 1
    assert metrics['sluice_requests_total{call="step_many",model="sum",outcome="bad_request"}'] == 1
    assert not [name for name in metrics if "secret" in name or "made-up" in name]
