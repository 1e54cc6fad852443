"""`sluice evaluate`: what is wrong with its flags is told before anything is started, and in one line."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import told

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.csv"
    file.write_text("x,label\n1,2\n")
    return file


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        ((), 2, "expected --data DATA, as sum is none of the example models"),
        (("--data", "{data}"), 2, "--task: expected one of classification, regression, "),
        (("--data", "{data}", "--task", "guessing"), 2, "open_set, got 'guessing'"),
        (("--data", "nowhere.csv", "--task", "regression"), 1, "nowhere.csv: expected a file of rows or a folder"),
        (
            ("--data", "{data}", "--task", "regression", "--batch-sizes", "1,many"),
            2,
            "--batch-sizes: expected 1,32,whole",
        ),
        (("--data", "{data}", "--task", "regression", "--batch-sizes", "0"), 2, "1,32,whole and the like, got '0'"),
        (
            ("--data", "{data}", "--task", "regression", "--compare-to=-1"),
            2,
            "--compare-to: expected a version, a whole",
        ),
        (("--data", "{data}", "--task", "regression", "--fail-if", ""), 2, '--fail-if: expected "accuracy < 0.97" and'),
        (("--data", "x" * 256, "--task", "regression"), 2, "--data: expected a path of at most 255 characters, got"),
        (("--data", "{data}", "--task", "regression", "--report", "r.pdf"), 2, "ends in .html, .md, .json, got r.pdf"),
        (("--data", "{data}", "--task", "regression", "--fail-if", "mae >"), 2, "`METRIC < NUMBER`"),
        (
            ("--data", "{data}", "--task", "regression", "--engine", "dask"),
            2,
            "--engine dask --scheduler tcp://HOST:PORT",
        ),
        (
            ("--data", "{data}", "--task", "regression", "--url", "grpc://127.0.0.1:1"),
            2,
            "--url: expected the gateway's HTTP",
        ),
        (("--data", "{data}", "--task", "regression", "--url", NOBODY), 3, f"{NOBODY}: expected a gateway there."),
        (
            ("--data", "{data}", "--task", "regression", "--url", NOBODY, "--models", "m"),
            2,
            "--url or --models, got both",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    data: Path, flags: tuple[str, ...], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    ended = told("evaluate", "sum", *(flag.format(data=data) for flag in flags))
    assert ended.code == code
    assert sentence in ended.reason
    assert len(ended.reason.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "expected the fields of an evaluation in JSON"),
        ("[]", "expected the fields of an evaluation in JSON"),
        (json.dumps({"task": "regression"}), "with data.path"),
        (json.dumps({"data": {"path": "rows.csv"}, "task": "regression", "batchsizes": [1]}), "batchsizes"),
    ],
)
def test_a_request_that_cannot_be_read_says_which_file(data: Path, content: str, sentence: str) -> None:
    file = data.parent / "sum.evaluation.json"
    file.write_text(content)
    ended = told("evaluate", "sum", "--data", file, "--url", NOBODY)
    assert str(file) in ended.reason
    assert sentence in ended.reason
