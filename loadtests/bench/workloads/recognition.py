"""What the cases of recognition send: a small picture, to a classifier that can say "none of these"."""

from pathlib import Path

import numpy as np
import orjson

from sluice.policy.calibration_document import write_calibration
from sluice.policy.recognition import Calibrated, Calibration

RECOGNIZER, DETECTOR = "pictures8", "pictures8_detector"  # small CNNs with random weights
LOGITS, SCORES = "serving_default", "recognize"  # signatures
METHODS = {"logits": "energy", "knn": "knn", "detector": "detector"}
SIZE, CLASSES = 8, 6
PICTURE = np.random.default_rng(7).uniform(0, 1, (SIZE, SIZE, 1)).astype(np.float32).round(3)
PREDICT_PATH, PREDICT_BODY = f"/v1/models/{RECOGNIZER}:predict", orjson.dumps({"instances": [PICTURE.tolist()]})
RECOGNIZE_PATH = f"/v1/models/{RECOGNIZER}:recognize"
_ROWS = 300


def recognize_body(method: str) -> bytes:
    """The picture of `PREDICT_BODY`, to be recognized."""
    return orjson.dumps({"instances": [PICTURE.tolist()], "method": method})


def write_calibrations(folder: Path) -> Path:
    """Have a calibration in `folder` that holds any scores at all; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = Calibrated(np.linspace(-20, 20, _ROWS))
    methods = dict.fromkeys(METHODS.values(), scores)
    about = RECOGNIZER, 1, "2026-11-26T05:00:00Z", 0.05, _ROWS, "0" * 64, "energy", 1.0
    calibration = Calibration(*about, methods)
    (folder / f"{RECOGNIZER}-1.json").write_bytes(orjson.dumps(write_calibration(calibration)))
    return folder
