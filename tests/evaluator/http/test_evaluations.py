"""Evaluations over HTTP: every path, and what is refused."""

import asyncio
import json

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from sluice.client import NoAnswer
from tests.evaluator.puppet import SPEC, refused


async def test_an_evaluation_is_asked_for_watched_and_read(here):
    answer = await here.http.post("/v1/evaluations", json=SPEC, headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (202, "mine")
    id = answer.json()["evaluation"]
    assert answer.json() == {"evaluation": id, "status": "queued"}
    here.time = 1001.0
    assert "has no report; its status is " in refused(
        await here.http.get(f"/v1/evaluations/{id}/report"), 409, "evaluation_conflict"
    )
    here.puppet.do()
    found = await here.until(id, status="done")
    assert found == {
        "evaluation": id, "model": "digits", "task": "classification", "status": "done", "failed": False,
        "rows_done": 40, "rows": 40, "rows_per_s": 100.0, "eta_s": None,
        "created_at": "1970-01-01T00:16:40.000Z", "started_at": found["started_at"],
        "finished_at": "1970-01-01T00:16:41.000Z",
        "metrics": {"mean": found["metrics"]["mean"]},
    }  # fmt: skip


async def test_a_report_is_json_markdown_or_a_page_that_may_do_nothing(here):
    id = await here.ask(fail_if=["mean < 20"])
    here.puppet.do()
    assert (await here.until(id, status="done"))["failed"] is True
    report = await here.http.get(f"/v1/evaluations/{id}/report")
    assert report.headers["content-type"] == "application/json"
    assert (report.json()["model"], report.json()["run"]["evaluation"]) == ("digits", id)
    report = await here.http.get(f"/v1/evaluations/{id}/report?format=md")
    assert (report.text, report.headers["content-type"]) == ("# digits", "text/markdown; charset=utf-8")
    report = await here.http.get(f"/v1/evaluations/{id}/report?format=html")
    assert (report.text, report.headers["content-type"]) == ("<h1>digits</h1>", "text/html; charset=utf-8")
    assert report.headers["x-content-type-options"] == "nosniff"
    assert (
        report.headers["content-security-policy"]
        == "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    told = refused(await here.http.get(f"/v1/evaluations/{id}/report?format=pdf"), 400, "bad_request")
    assert "format takes 'json', 'md' or 'html'; \"pdf\" came" in told


async def test_the_newest_are_listed_first_in_pages(here):
    ids = [await here.ask(model=model) for model in ("a", "b", "a", "b", "a")]
    first = (await here.http.get("/v1/evaluations?limit=2")).json()
    assert [each["evaluation"] for each in first["evaluations"]] == [ids[4], ids[3]]
    rest = (await here.http.get("/v1/evaluations", params={"after": first["next"]})).json()
    assert [each["evaluation"] for each in rest["evaluations"]] == [ids[2], ids[1], ids[0]]
    assert "next" not in rest
    of_b = (await here.http.get("/v1/evaluations?model=b&limit=2")).json()
    assert [each["evaluation"] for each in of_b["evaluations"]] == [ids[3], ids[1]]
    assert "next" not in of_b
    for wrong in ("limit=0", "limit=x", "after=" + "9" * 30, "after=no"):
        refused(await here.http.get(f"/v1/evaluations?{wrong}"), 400, "bad_request")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (SPEC | {"metrix": ["accuracy"]}, "there is no field 'metrix'; did you mean metrics?"),
        (SPEC | {"zzz": 1}, "there is no field 'zzz'; it takes model, version, label, data"),
        (SPEC | {"columns": {"lable": "y"}}, "there is no field 'lable' in columns; did you mean label?"),
        (SPEC | {"options": {"bin": 3}}, "there is no field 'bin' in options; did you mean bins?"),
        (SPEC | {"task": "divination"}, "task takes 'classification', "),
        (SPEC | {"data": {"path": "a.csv", "sha256": "x"}}, 'data.sha256 takes 64 hexadecimal digits; "x" came'),
        (SPEC | {"data": {}}, "data: expected `path` or `upload`, one of them"),
        (SPEC | {"version": 1, "label": "stable"}, "body: expected `version` or `label`, got both"),
        (SPEC | {"version": "x"}, "version takes a whole number"),
        (SPEC | {"options": {"horizon": 10**9}}, "options.horizon takes a number up to 1000"),
        (SPEC | {"version": 2**63}, "version takes a number below 9223372036854775808; 9223372036854775808 came"),
        (SPEC | {"compare_to": 10**30}, "compare_to takes a number below 9223372036854775808; 1000"),
        (SPEC | {"label": ""}, 'label takes text of 1 or more characters; "" came'),
        (SPEC | {"batch_sizes": [0]}, 'read: batch_sizes.0: expected a whole number from 1, or "whole"; got 0.'),
        (SPEC | {"batch_sizes": ["hole"]}, 'expected a whole number from 1, or "whole"; got "hole".'),
        ({"model": "digits"}, "data is missing; task is missing"),
        (SPEC | {"fail_if": ["__import__('os')"]}, "A condition is METRIC < NUMBER; got"),
        (SPEC | {"data": {"path": "b.csv"}}, "below the data roots; there is none of the name 'b.csv'"),
        (SPEC | {"data": {"upload": "nope"}}, "There is no upload 'nope'"),
        ([], "body takes"),
        (b"{", "the body is not JSON"),
        (b"\xff", "JSON in UTF-8"),
        (b"", "body is missing"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_what_is_asked_for_is_told_and_nothing_is_queued(here, body, told):
    content = body if isinstance(body, bytes) else json.dumps(body)
    sentence = refused(await here.http.post("/v1/evaluations", content=content), 400, "bad_request")
    assert told in sentence
    assert (await here.http.get("/v1/evaluations")).json() == {"evaluations": []}


async def test_a_place_in_the_list_that_is_none_is_told_without_a_pattern(here):
    told = refused(await here.http.get("/v1/evaluations?after=x"), 400, "bad_request")
    assert told.endswith('after takes the `next` of the list before, a whole number; "x" came.')


async def test_head_of_events_ends_while_the_evaluation_goes_on(here):
    asked = await here.http.post("/v1/evaluations", json=SPEC)
    async with asyncio.timeout(10):
        answer = await here.http.head(f"/v1/evaluations/{asked.json()['evaluation']}/events")
    assert (answer.status_code, answer.headers["content-type"][:17]) == (200, "text/event-stream")
    assert (await here.http.get(f"/v1/evaluations/{asked.json()['evaluation']}")).json()["status"] != "done"


async def test_a_path_outside_the_roots_is_refused(here):
    for path in ("../../etc/passwd", "/etc/passwd"):
        answer = await here.http.post("/v1/evaluations", json=SPEC | {"data": {"path": path}})
        refused(answer, 400, "bad_request")


async def test_a_body_that_is_too_large_is_refused(here):
    answer = await here.http.post("/v1/evaluations", content=b" " * (1024 * 1024 + 1))
    assert "may have 1048576 bytes" in refused(answer, 413, "body_too_large")


async def test_what_is_not_there_is_told_on_every_path(here):
    for method, path, status, code in [
        ("GET", "/v1/evaluations/no", 404, "evaluation_not_found"),
        ("GET", "/v1/evaluations/no/report", 404, "evaluation_not_found"),
        ("GET", "/v1/evaluations/no/events", 404, "evaluation_not_found"),
        ("POST", "/v1/evaluations/no:cancel", 404, "evaluation_not_found"),
        ("POST", "/v1/evaluations/no:resume", 404, "evaluation_not_found"),
        ("DELETE", "/v1/evaluations/no", 404, "evaluation_not_found"),
        ("GET", "/v1/evaluation", 404, "bad_request"),
        ("POST", "/v1/evaluations/no:explode", 404, "bad_request"),
        ("PATCH", "/v1/evaluations", 405, "bad_request"),
    ]:
        refused(await here.http.request(method, path), status, code)


def events_of(text: str) -> list[tuple[str, dict]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_whoever_watches_is_told_of_every_change_until_the_end(here, monkeypatch):
    monkeypatch.setattr("sluice.evaluator.http.events.events.__kwdefaults__", {"least_s": 0, "heartbeat_s": 15.0})
    id = await here.ask()
    await here.until(id, status="running")
    watching = asyncio.create_task(here.http.get(f"/v1/evaluations/{id}/events"))
    for rows in (10, 20, 30):
        await here.until(id, rows_done=rows - 10)
        here.puppet.do(1)
        await here.until(id, rows_done=rows)
    here.puppet.fail(NoAnswer("Nobody is there."))
    await here.until(id, status="paused")
    await here.http.post(f"/v1/evaluations/{id}:resume")
    here.puppet.do(1)
    answer = await watching
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [name for name, _ in events] == ["progress"] * (len(events) - 1) + ["done"]
    told = [(body["status"], body["rows_done"]) for _, body in events]
    assert told == sorted(told, key=lambda each: each[1])  # it never goes back
    assert told[-1] == ("done", 40)
    assert events[-1][1] == events[-2][1] == await here.get(id)
    assert len(events) == len({json.dumps(body) for _, body in events}) + 1  # each change once


async def test_watching_one_that_is_deleted_ends(here):
    id = await here.ask()
    await here.until(id, status="running")
    watching = asyncio.create_task(here.http.get(f"/v1/evaluations/{id}/events"))
    while not here.service.runner.changes._watching:
        await asyncio.sleep(0)
    await here.http.delete(f"/v1/evaluations/{id}")
    name, body = events_of((await watching).text)[-1]  # it was cancelled for a moment before it was no more
    assert (name, body.get("code"), body.get("status")) in {
        ("error", "evaluation_not_found", None), ("done", None, "cancelled"),
    }  # fmt: skip


async def test_nobody_is_told_any_more_who_has_left(here):
    id = await here.ask()
    watching = asyncio.create_task(here.http.get(f"/v1/evaluations/{id}/events"))
    while not here.service.runner.changes._watching:
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not here.service.runner.changes._watching


async def test_an_evaluator_that_stops_ends_the_streams(here):
    id = await here.ask()
    watching = asyncio.create_task(here.http.get(f"/v1/evaluations/{id}/events"))
    while not here.service.runner.changes._watching:
        await asyncio.sleep(0)
    here.service.runner.changes.end()
    assert "event: done" not in (await watching).text


async def test_a_database_that_is_away_is_told_with_503(here):
    def refuse(*_):
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    event.listen(here.database, "before_cursor_execute", refuse)
    told = refused(await here.http.get("/v1/evaluations"), 503, "backend_unavailable")
    assert "database cannot be used: server closed the connection" in told
    ready = await here.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert "server closed" in ready.json()["reason"]


async def test_a_bug_is_told_with_its_request_id_and_logged(here, monkeypatch, logs):
    monkeypatch.setattr(here.service.store, "newest", lambda *_: 1 / 0)
    answer = await here.http.get("/v1/evaluations", headers={"X-Request-Id": "r-7"})
    refused(answer, 500, "internal")
    (told,) = [each for each in logs if each["event"] == "request failed"]
    assert told["request_id"] == "r-7"


async def test_it_is_ready_when_the_gateway_answers(here):
    await here.ask(model="a")
    ready = await here.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["gateway"]) == (200, "ready", "http://gateway")
    assert sum(ready.json()["evaluations"].values()) == 1
    here.reached = NoAnswer("Nobody listens there.")
    ready = await here.http.get("/readyz")
    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    assert "Nobody listens there." in ready.json()["reason"]
    assert (await here.http.get("/healthz")).json() == {"status": "alive"}


async def test_metrics_count_evaluations_and_rows(here):
    id = await here.ask()
    waiting = await here.ask()
    here.puppet.do(4)
    await here.until(id, status="done")
    await here.until(waiting, status="running")
    lines = (await here.http.get("/metrics")).text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples == {
        "sluice_evaluation_rows_total": "40.0",
        **{f'sluice_evaluations{{status="{each}"}}': "0.0" for each in ("queued", "paused", "failed", "cancelled")},
        'sluice_evaluations{status="done"}': "1.0",
        'sluice_evaluations{status="running"}': "1.0",
    }


async def test_the_page_of_all_paths_has_them_all_and_loads_nothing_from_elsewhere(here):
    schema = (await here.http.get("/openapi.json")).json()
    assert {path: sorted(each) for path, each in schema["paths"].items()} == {
        "/v1/evaluations": ["get", "post"],
        "/v1/evaluations/uploads": ["post"],
        "/v1/evaluations/{id}": ["delete", "get"],
        "/v1/evaluations/{id}/events": ["get"],
        "/v1/evaluations/{id}/report": ["get"],
        "/v1/evaluations/{id}:cancel": ["post"],
        "/v1/evaluations/{id}:resume": ["post"],
        "/healthz": ["get"], "/readyz": ["get"], "/metrics": ["get"],
    }  # fmt: skip
    for operations in schema["paths"].values():
        for each in operations.values():
            assert each["summary"]
            assert each["description"]
            assert "422" not in each["responses"]
    page = (await here.http.get("/docs")).text
    assert "https://" not in page
