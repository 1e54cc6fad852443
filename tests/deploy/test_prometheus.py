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


def series(name: str, about: str, values: str) -> dict[str, str]:
    return {"series": name + about, "values": values}


def firing(alert: str, minute: int, *counts: int) -> dict[str, object]:
    """How many alerts go off at a minute; none: nothing is counted."""
    expr = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    return {
        "expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": each} for each in counts]
    }  # fmt: skip


def run(folder: Path, given: list[dict[str, str]], expected: list[dict[str, object]]) -> None:
    case = {"interval": "1m", "input_series": given, "promql_expr_test": expected}
    test = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yaml", folder=folder)


def test_drift_goes_off_when_rows_are_unlike_the_calibrations_for_a_while(tmp_path: Path) -> None:
    about, alert = '{model="digits", version="1", method="knn"}', "SluiceRecognitionDrift"
    given = [
        series("sluice_recognition_drift", about, "0.05x20 0.4x40"),
        series("sluice_recognition_drift_critical", about, "0.12x60"),
    ]
    run(tmp_path, given, [firing(alert, 19), firing(alert, 25), firing(alert, 35, 1)])


def test_readiness_goes_off_when_it_stays_away_and_not_at_a_restart(tmp_path: Path) -> None:
    gateways = [
        series("sluice_ready", '{instance="restarts"}', "1x10 0x2 1x28"),
        series("sluice_ready", '{instance="stays away"}', "1x10 0x30"),
    ]
    run(tmp_path, gateways, [firing("SluiceNotReady", 13), firing("SluiceNotReady", 20, 1)])


def test_a_model_server_that_batches_too_goes_off_while_batches_are_refused(tmp_path: Path) -> None:
    about = [
        series("sluice_batch_collisions_total", '{model="none"}', "0x60"),
        series("sluice_batch_collisions_total", '{model="once"}', "0x10 4x50"),
    ]
    alert = "SluiceModelServerBatches"
    run(tmp_path, about, [firing(alert, 9), firing(alert, 18, 1), firing(alert, 40)])


def test_a_model_goes_off_when_it_stays_in_trouble_and_not_while_it_loads(tmp_path: Path) -> None:
    models = [
        series("sluice_model_troubled", '{model="loads"}', "0x5 1x6 0x29"),
        series("sluice_model_troubled", '{model="is cut off"}', "0x5 1x35"),
    ]
    run(tmp_path, models, [firing("SluiceModelTroubled", 12), firing("SluiceModelTroubled", 20, 1)])
