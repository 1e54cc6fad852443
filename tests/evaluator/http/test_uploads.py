"""Files come in a form or as the body, part by part, and are deleted with what they are for."""

import hashlib
import os
from pathlib import Path

import pytest

from sluice.data import File
from tests.evaluator.puppet import refused

DATA = b"x,label\n" + b"".join(b"%d,a\r\n" % row for row in range(5000)) + b"\r\n--not the boundary\r\n"


async def upload(here, **how) -> dict:
    answer = await here.http.post("/v1/evaluations/uploads", **how)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.parametrize("how", ["form", "body", "curl"])
async def test_a_file_arrives_as_it_is(here, how):
    form = {"files": {"file": ("a.csv", DATA)}}
    ways = {
        "form": {**form, "data": {"before": "ä" * 100}},
        "body": {"content": DATA, "params": {"name": "a.csv"}},
        "curl": {
            "content": DATA, "params": {"name": "a.csv"},
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        },
    }  # fmt: skip
    made = await upload(here, **ways[how])
    assert made == {"upload": made["upload"], "bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    kept = here.service.store.upload(made["upload"])
    assert (kept.name, Path(kept.path).read_bytes()) == ("a.csv", DATA)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_form_may_be_cut_anywhere(here, size):
    boundary = b"0123456789abcdef"
    form = (
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b"--" + boundary + b'\r\ncontent-disposition: form-data; name="file"; filename="C:\\data\\a.csv"\r\n'
        b"Content-Type: text/csv\r\n\r\n" + DATA[:3000] + b"\r\n--" + boundary + b"--\r\n"
    )  # fmt: skip

    async def parts():
        for start in range(0, len(form), size):
            yield form[start : start + size]

    kind = {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}
    made = await upload(here, content=parts(), headers=kind)
    kept = here.service.store.upload(made["upload"])
    assert (kept.name, Path(kept.path).read_bytes()) == ("a.csv", DATA[:3000])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"content": b"x"}, "no name that can be used"),
        ({"content": b"x", "params": {"name": ".."}}, "no name that can be used"),
        ({"content": b"x", "params": {"name": "a\0.csv"}}, "no name that can be used"),
        ({"content": b"x", "params": {"name": "a" * 300}}, "no name that can be used"),
        ({"files": {"a": ("", b"x")}}, "no name that can be used|no file in the form"),
        ({"data": {"a": "b"}, "files": {"f": (None, b"x")}}, "no file in the form"),
        ({"files": [("a", ("a.csv", b"x")), ("b", ("b.csv", b"y"))]}, "several files"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            "boundary cannot be used: it is missing",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "form cannot be read"),
        (
            {
                "content": b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\nhalf',
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            "ends in the middle",
        ),
        (
            {
                "content": b"--b\r\nX: " + b"y" * 40_000,
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            "bytes|cannot be read|no file",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_file_is_refused_and_nothing_is_left(here, tmp_path, how, told):
    sentence = refused(await here.http.post("/v1/evaluations/uploads", **how), 400, "bad_request")
    assert any(each in sentence for each in told.split("|")), sentence
    assert [*(tmp_path / "uploads").iterdir()] == []


async def test_an_upload_is_evaluated_and_deleted_with_its_evaluation(here, tmp_path):
    made = await upload(here, files={"file": ("a.csv", DATA)})
    path = here.service.store.upload(made["upload"]).path
    id = await here.ask(data={"upload": made["upload"]})
    here.puppet.do()
    await here.until(id, status="done")
    assert here.puppet.given == [[File("a.csv", path)]]
    await here.http.delete(f"/v1/evaluations/{id}")
    assert [*(tmp_path / "uploads").iterdir()] == []
    answer = await here.http.post(
        "/v1/evaluations", json={"model": "m", "task": "regression", "data": {"upload": made["upload"]}}
    )
    assert "Send the file again" in refused(answer, 400, "bad_request")


async def test_an_upload_that_nobody_evaluates_is_deleted_after_its_time(here, tmp_path):
    first = await upload(here, files={"file": ("a.csv", DATA)})
    here.time += 60
    second = await upload(here, files={"file": ("a.csv", DATA)})
    here.time += 60
    left = tmp_path / "uploads" / "of a killed process"
    left.write_text("x")
    os.utime(left, (0, 0))
    await here.service.expire()
    assert here.service.store.upload(first["upload"]) is None
    (kept,) = (tmp_path / "uploads").iterdir()
    assert str(kept) == here.service.store.upload(second["upload"]).path
