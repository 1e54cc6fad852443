"""What the pages show is what happens: their requests run in order against real processes, and the answers agree.

A shown answer agrees if it has the same keys and the same values, numbers up to rounding; `…` stands for anything.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.docs.numbers import Written, prints, read
from tests.docs.pages import Block, blocks, pages
from tests.docs.programs import WRITTEN_AS, file_name, here
from tests.end_to_end.serving import Gateway, environment, eventually

RUN = (
    "curl ",
    ".venv/bin/python ",
    *(f".venv/bin/sluice {each} " for each in ("export", "calibrate", "evaluate", "explain")),
)
SHOWN = ("json", "http", "text")
# Pages that ask other models than the rest; their fixtures begin so.
OTHERS = {Path("docs/recognition.md"): "recognition_", Path("docs/questions.md"): "questions_"}
PAGES = [page for page in pages() if any(WRITTEN_AS in each.text for each in blocks(page) if each.language == "sh")]
PAGES.sort(key=lambda page: page.name == "README.md")  # the last one, as it leaves a model of its own behind


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_requests_of_a_page_are_answered_as_it_shows(page: Path, request: pytest.FixtureRequest) -> None:
    need_curl()
    theirs = OTHERS.get(page, "")
    gateway, workplace = (request.getfixturevalue(theirs + name) for name in ("gateway", "workplace"))
    before = metrics(gateway)
    for block, following in pairwise([*blocks(page), Block("", "", "")]):
        if block.language == "python":
            (workplace / file_name(block)).write_text(here(block.text, gateway), encoding="utf-8")
        if block.language != "sh" or not block.text.startswith(RUN):
            continue
        output = run(block.text, gateway, workplace)
        for model in re.findall(r"--out var/models/(\w+)/1", block.text):
            eventually(
                lambda name=model: gateway.call("GET", "/readyz").body["models"].get(name), 60, gateway.log.read_text
            )
        if block.text.startswith(".venv/bin/") and following.language == "text":
            assert prints(following.text, output), f"{output}\nis not\n{following.text}"
        if "curl " in block.text:
            assert following.language in SHOWN, f"no answer is shown for {block.text}"
            compare(following, parse(output), block.text, before)


def test_the_readme_and_the_pages_about_requests_are_among_those_that_run() -> None:
    named = (
        "batching",
        "errors",
        "generation",
        "evaluation",
        "metrics",
        "questions",
        "recognition",
        "sequences",
        "sessions",
        "tour",
    )
    assert {"README.md", *(f"docs/{name}.md" for name in named)} <= set(map(str, PAGES))


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ('{"a": 1}', {"a": 1, "b": 2}),
        ('{"a": 1, "b": 2}', {"a": 1}),
        ('{"a": 1}', {"a": 2}),
        ('{"a": 1.5}', {"a": "1.5"}),
        ('{"a": 22.582153}', {"a": 22.511995}),
        ('{"a": [1.5]}', {"a": [1.5, 2.5]}),
        ('{"a": "one … three"}', {"a": "one two four"}),
        ('{"a": {"b": 1}}', {"a": None}),
    ],
)
def test_an_answer_that_differs_is_noticed(shown: str, got: Any) -> None:
    assert not agrees(read(shown), got)


def need_curl() -> None:
    if shutil.which("curl") is None:
        missing = "curl is missing; install the package `curl`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def run(script: str, gateway: Gateway, workplace: Path) -> str:
    """Paste a block into a shell; curl tells its status at the end, whatever flags it is given."""
    (workplace / ".curlrc").write_text('write-out = "\\n%{http_code}"\n')
    script = here(script, gateway).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    pasted = subprocess.run(
        ["bash", "-euc", script], cwd=workplace, env=environment() | {"CURL_HOME": str(workplace)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert pasted.returncode == 0, f"{script}\n{pasted.stdout}\n{pasted.stderr}"
    return pasted.stdout


def parse(output: str) -> Answer:
    """What curl printed: perhaps a head, the body, and the status behind it."""
    text, _, status = output.replace("\r\n", "\n").rpartition("\n")
    head, _, body = text.partition("\n\n") if text.startswith("HTTP/") else ("", "", text)
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:])
    return Answer(int(status), headers, body)


def compare(shown: Block, answer: Answer, request: str, before: dict[str, float]) -> None:
    if shown.language == "http":
        head, _, body = shown.text.partition("\n\n")
        first, *headers = head.splitlines()
        assert answer.status == int(first.split()[1]), f"{request}\n{answer}"
        for line in headers:
            name, value = line.lower().split(": ", 1)
            assert answer.headers.get(name) == value, f"{request}\n{line}\n{answer}"
        assert agrees(read(body), json.loads(answer.body)) if body.strip() else not answer.body.strip()
        return
    assert 200 <= answer.status < 300, f"{request}\n{answer}"
    if shown.language == "json":
        assert agrees(read(shown.text), json.loads(answer.body)), f"{request}\n{answer.body}\nis not\n{shown.text}"
    elif shown.text.startswith("event: "):
        came = iter(events(answer.body))
        for name, data in events(shown.text):  # `…` stands for those between
            assert any(name == other and agrees(data, found) for other, found in came), f"{request}\n{answer.body}"
    else:
        found = values(answer.body)
        grown = {line: value - before.get(line, 0) if "_total{" in line else value for line, value in found.items()}
        assert values(shown.text).items() <= grown.items(), f"{request}\n{grown}\nhas not\n{shown.text}"


def metrics(gateway: Gateway) -> dict[str, float]:
    return values(gateway.call("GET", "/metrics").body.decode())


def values(text: str) -> dict[str, float]:
    """Metrics in Prometheus' text format; counters on a page count what the page itself has asked."""
    samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def events(stream: str) -> list[tuple[str, Any]]:
    """Server-sent events, by name and data."""
    return [(name, read(data)) for name, data in re.findall(r"^event: (.*)\ndata: (.*)$", stream, re.MULTILINE)]


def agrees(shown: Any, got: Any) -> bool:
    if isinstance(shown, str) and "…" in shown:
        pattern = ".*".join(map(re.escape, shown.split("…")))
        return shown == "…" or (isinstance(got, str) and re.fullmatch(pattern, got, re.DOTALL) is not None)
    if isinstance(shown, dict):
        return (
            isinstance(got, dict) and shown.keys() == got.keys() and all(agrees(shown[key], got[key]) for key in shown)
        )
    if isinstance(shown, list):
        return isinstance(got, list) and len(shown) == len(got) and all(map(agrees, shown, got))
    if isinstance(shown, Written):
        return isinstance(got, float) and shown.is_near(got)
    return shown == got
