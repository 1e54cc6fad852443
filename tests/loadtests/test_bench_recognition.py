"""What the bench sends to be recognized is what the gateway takes, and the bars are about cases that there are."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests.bench.cases.doors import all_cases
from loadtests.bench.report.bars import bars
from loadtests.bench.workloads.recognition import (
    METHODS,
    PICTURE,
    PREDICT_BODY,
    RECOGNIZER,
    recognize_body,
    write_calibrations,
)
from sluice.policy.calibration_document import parse_calibration
from sluice.policy.recognition import threshold_of
from sluice.wire.recognition import parse_recognize


def test_the_calibration_can_be_used_for_every_method(tmp_path: Path) -> None:
    [file] = write_calibrations(tmp_path / "calibrations").iterdir()
    calibration = parse_calibration(orjson.loads(file.read_bytes()))
    assert file.name == f"{calibration.model}-{calibration.version}.json" == f"{RECOGNIZER}-1.json"
    assert all(threshold_of(calibration, method, calibration.level) for method in METHODS.values())


@pytest.mark.parametrize("method", METHODS.values())
def test_recognize_and_predict_get_the_same_picture(method: str) -> None:
    asked = parse_recognize(recognize_body(method))
    assert asked.method == method
    assert asked.rows.value == orjson.loads(PREDICT_BODY)["instances"]
    assert np.array_equal(np.array(asked.rows.value, np.float32), PICTURE[np.newaxis])


def test_every_bar_of_recognition_is_measured() -> None:
    cases = {case.name for case in all_cases() if case.group == "recognition"}
    assert cases == {f"recognition-{kind}-{clients}" for kind in ("predict", *METHODS) for clients in (1, 64)}
    assert len([bar for bar in bars({}) if "recogni" in bar.title]) == 4
