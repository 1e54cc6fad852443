"""The evaluator with all its parts: from an upload over HTTP to its report, through a gateway that runs."""

import io

import numpy as np
import pytest

from sluice.evaluator.parts import parts_of
from sluice.evaluator.settings import Settings
from tests.evaluator import puppet as evaluator
from tests.evaluator.evaluations import ROWS, made_up

FORECAST = {"model": "plain", "task": "regression", "options": {"resamples": 100}}


@pytest.fixture
async def service(here, tmp_path):
    """An evaluator over the gateway in this process; one file may be read."""
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "rows.npz", **made_up())
    settings = Settings(data_roots=(str(tmp_path / "data"),), uploads=tmp_path / "uploads", _cli_parse_args=False)
    gateway = f"http://127.0.0.1:{here.port}"
    async with evaluator.running(tmp_path, parts=parts_of(settings), gateway=gateway) as service:
        yield service


async def test_an_upload_is_evaluated_as_the_same_file_below_a_root_is(service, tmp_path):
    packed = io.BytesIO()
    np.savez(packed, **made_up())
    upload = (await service.http.post("/v1/evaluations/uploads", files={"f": ("rows.npz", packed.getvalue())})).json()
    reports = []
    for data in ({"upload": upload["upload"]}, {"path": "rows.npz"}):
        id = await service.ask(**FORECAST, data=data, fail_if=["mse > 1"])
        found = await service.until(id, status="done")
        assert (found["rows_done"], found["rows"], found["failed"]) == (ROWS, ROWS, False)
        report = (await service.http.get(f"/v1/evaluations/{id}/report")).json()
        reports.append({name: value for name, value in report.items() if name not in {"run", "spec", "data"}})
        assert (report["data"]["rows"], report["data"]["source"]) == (ROWS, "rows.npz")
    assert reports[0] == reports[1]
    page = (await service.http.get(f"/v1/evaluations/{id}/report?format=html")).text
    assert "&lt;img onerror=alert(1)&gt;" in page
    assert "<img onerror" not in page
    assert "# plain version 1" in (await service.http.get(f"/v1/evaluations/{id}/report?format=md")).text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"data": {"path": "../../etc/passwd"}}, "there is none of the name '../../etc/passwd'"),
        ({"data": {"path": "http://127.0.0.1/rows.npz"}}, "a URL that begins with file://"),
        ({"data": {"path": "rows.npz"}, "fail_if": ["__import__('os')"]}, "__import__"),
        ({"data": {"path": "rows.npz"}, "fail_if": ["mse rises > 1 vs 2", "mse rises > 1 vs 3"]}, "name 2, 3"),
        ({"data": {"path": "rows.npz"}, "fail_if": ["maes > 1"]}, "did you mean 'mae'"),
        ({"data": {"path": "rows.npz"}, "metrics": ["accuracy"]}, "got 'accuracy'"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_the_door(service, fields, told):
    answer = await service.http.post("/v1/evaluations", json=FORECAST | fields)
    assert told in evaluator.refused(answer, 400, "bad_request")


async def test_an_upload_of_another_kind_is_refused(service, tmp_path):
    answer = await service.http.post("/v1/evaluations/uploads?name=rows.pkl", content=b"x")
    assert ".npz, .csv, .jsonl, .parquet; got 'rows.pkl'" in evaluator.refused(answer, 400, "bad_request")
    assert [*(tmp_path / "uploads").iterdir()] == []
