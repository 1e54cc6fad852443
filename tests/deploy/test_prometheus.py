"""Alerts and the dashboard ask for metrics that there are; each alert goes off when it should, and has a runbook."""

import os
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from sluice.evaluator.jobs.life_cycle import Status
from sluice.model_server.monitoring import Monitoring
from sluice.policy import errors
from tests.deploy.dashboard import ROOT, panels
from tests.docs.pages import text_of

FOLDER = ROOT / "deploy" / "prometheus"
ON_EVERY_SERIES = {"job", "instance"}


def needed(program: str) -> None:
    """Skips the test without it; where everything must run, the test fails."""
    if shutil.which(program) is None:
        missing = f"{program} is missing; install the package `prometheus`, or run `make system-packages`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@pytest.mark.parametrize(
    "args",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "rules.yaml"), ("test", "rules", "rules.test.yaml")],
    ids=" ".join,
)
def test_promtool_is_content_with(args: tuple[str, ...]) -> None:
    needed("promtool")
    checked = subprocess.run(["promtool", *args], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@cache
def definitions() -> dict[str, set[str]]:
    """The labels of every series: of the gateway, of the evaluator, of TensorFlow Serving, and of our own rules."""
    found = {name: set(labels) for name, _, labels in gateway_metrics()}
    for name, kind, labels in gateway_metrics():
        if kind == "histogram":
            found |= {f"{name}_{part}": set(labels) for part in ("sum", "count")}
            found[f"{name}_bucket"] = {*labels, "le"}
    found |= {"sluice_evaluations": {"status"}, "sluice_evaluation_rows_total": set()}
    monitoring = Monitoring(lambda _: True)
    with monitoring.request("m", "Predict", "GRPC"):
        pass
    for name, labels in re.findall(r"^(:[\w:]+)\{(.*)\}", monitoring.page().decode(), re.MULTILINE):
        found[name] = set(re.findall(r"(\w+)=", labels))
    found |= {rule["record"]: grouped(rule["expr"]) for rule in rules() if "record" in rule}
    return found | {"up": set()}


def gateway_metrics() -> list[tuple[str, str, list[str]]]:
    """Name, type and labels, as the page has them, which is written from the code."""
    for name, kind, labels in re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", text_of("docs/metrics.md"), re.MULTILINE
    ):
        yield name, kind, re.findall(r"`(\w+)`", labels)


def grouped(expr: str) -> set[str]:
    """The labels by which an expression sums."""
    return {label for labels in re.findall(r"\bby \(([^)]*)\)", expr) for label in labels.split(", ")} - {"le"}


def selectors(expr: str) -> list[tuple[str, str]]:
    """The series that an expression asks for, and what stands in their braces."""
    return re.findall(r"(?<![\w:\"$])((?:\w*:|sluice_|process_|up\b)[\w:]*)(?:\{([^}]*)\})?", expr)


def asked_for() -> list[tuple[str, str]]:
    """Where an expression stands, and the expression."""
    ours = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return ours + [(panel.title, query.expr) for panel in panels() for query in panel.queries]


@pytest.mark.parametrize(("place", "expr"), asked_for(), ids=lambda value: value if " by (" not in value else "")
def test_what_is_asked_for_exists_with_its_labels(place: str, expr: str) -> None:
    named = selectors(expr)
    assert named
    there: set[str] = set(ON_EVERY_SERIES)
    for name, about in named:
        assert name in definitions()
        matched = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", about))
        assert matched <= definitions()[name] | ON_EVERY_SERIES, name
        there |= definitions()[name]
    assert grouped(expr) <= there


def test_values_that_are_asked_for_are_those_that_there_are() -> None:
    codes = {value.code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "code")}
    known = {
        "outcome": codes | {"ok", "accepted"}, "reason": {"evicted", "version_gone"}, "kind": {"padding", "real"},
        "status": {each.value for each in Status},
    }  # fmt: skip
    for place, expr in asked_for():
        for label, values in re.findall(r'\b(outcome|reason|kind|status)!?=~?"([^"]*)"', expr):
            assert set(values.split("|")) <= known[label], place


def test_labels_in_legends_are_those_that_a_query_leaves() -> None:
    for panel in panels():
        for query in panel.queries:
            shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
            left = {label for name, _ in selectors(query.expr) for label in definitions()[name]}
            assert shown <= (grouped(query.expr) or left | ON_EVERY_SERIES), panel.title


def test_every_alert_is_seen_to_go_off_and_not_to() -> None:
    tested: dict[str, set[bool]] = {}
    for case in yaml.safe_load((FOLDER / "rules.test.yaml").read_text())["tests"]:
        for each in case["promql_expr_test"]:
            (alert,) = re.findall(r'alertname="(\w+)"', each["expr"])
            tested.setdefault(alert, set()).add("exp_samples" in each)
    assert tested == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_has_a_runbook_that_says_what_to_do() -> None:
    page = text_of("docs/operations.md")
    sections = dict(re.findall(r"^### (Sluice\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        name, labels = rule["alert"], rule["labels"]
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert labels["severity"] in ("critical", "warning")
        assert re.findall(r"^- \*\*([\w ]+)\*\*", sections[name], re.MULTILINE) == [
            "Look at", "Do", "It is nothing"
        ]  # fmt: skip


def test_panels_name_alerts_that_there_are() -> None:
    named = set(re.findall(r"Sluice[A-Z]\w+", (ROOT / "deploy" / "grafana" / "dashboard.json").read_text()))
    assert named
    assert named <= {rule["alert"] for rule in alerts()}


def test_panels_lie_side_by_side_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel.place
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel.title
        assert max(x for x, _ in cells) < 24
        taken |= cells
