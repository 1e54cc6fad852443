"""The demo, where its gateway does not become ready."""

from pathlib import Path

import pytest

from sluice.cli.demo.command import MODELS
from tests.cli.conftest import told


def test_a_demo_that_cannot_be_served_says_why_and_where_the_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.cli.embedded._READY_S", 0.0)  # what is started has nothing that can be served
    monkeypatch.setattr("sluice_models.train.is_built", lambda *_: True)  # or it would train them
    for name in MODELS:
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "saved_model.pb").touch()
    out = tmp_path / "demo"
    ended = told("demo", "--models", tmp_path / "models", "--out", out)
    assert ended.code == 3
    assert ended.reason.startswith("sluice: the demo could not be served: the gateway is not ready after 0 s: ")
    assert ended.reason.endswith(f". The log is in {out / 'serve.log'}")
