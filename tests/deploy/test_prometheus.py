"""The alert rules are rules for Prometheus, over metrics that there are, and go off when they should and not before."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, text_of

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"


def promtool(*args: str, folder: Path = ROOT) -> None:
    if shutil.which("promtool") is None:
        missing = "promtool is missing; install the package `prometheus`, or run `make system-packages`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    checked = subprocess.run(["promtool", *args], cwd=folder, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_accepts_the_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_the_rules_are_over_metrics_that_there_are() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    named = {name for rule in rules for name in re.findall(r"\bsluice_\w+", rule["expr"])}
    assert named
    assert not [name for name in named if f"| `{name}` |" not in text_of("docs/metrics.md")]


def test_drift_goes_off_when_rows_are_unlike_the_calibrations_for_a_while(tmp_path: Path) -> None:
    about = '{model="digits", version="1", method="knn"}'

    def series(name: str, values: str) -> dict[str, str]:
        return {"series": f"{name}{about}", "values": values}

    def firing(minute: int, *counts: int) -> dict[str, object]:
        expr = 'count(ALERTS{alertname="SluiceRecognitionDrift", alertstate="firing", model="digits"})'
        samples = [{"labels": "{}", "value": count} for count in counts]
        return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples}

    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    series("sluice_recognition_drift", "0.05x20 0.4x40"),
                    series("sluice_recognition_drift_critical", "0.12x60"),
                ],
                "promql_expr_test": [firing(19), firing(25), firing(35, 1)],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yaml", folder=tmp_path)
