"""What is asked of both open-set models, `digits` and `glyphs`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from sluice.export.scores import METHODS
from sluice.policy.measures import auroc
from sluice_models.openset.data import Data

LEVEL = 0.05


def parts_are_disjoint(data: Data) -> None:
    """No picture is in two parts, save that outliers are made of the known pictures beside them."""
    kept = {
        "train": [data.train.pictures],
        "calibration": [data.calibration.pictures],
        "test": [data.test.pictures, data.near, *data.far.values()],
        "outliers": [data.outliers],
        "calibration outliers": [data.calibration_outliers],
    }
    found = [{picture.tobytes() for pictures in part for picture in pictures} for part in kept.values()]
    assert len(set().union(*found)) == sum(map(len, found))


def pictures_are_pictures(data: Data) -> None:
    every = [data.train.pictures, data.calibration.pictures, data.test.pictures, data.outliers, data.near]
    for part in [*every, data.calibration_outliers, *data.far.values()]:
        assert part.dtype == np.float32
        assert part.shape[1:] == (data.size, data.size, 1)
        assert part.min() >= 0
        assert part.max() <= 1
        np.testing.assert_allclose(part * 255, np.rint(part * 255), atol=1e-3)
    for split in (data.train, data.calibration, data.test):
        assert {*split.labels.tolist()} == {*range(len(data.classes))}
        assert len(split.labels) == len(split.pictures)


class Served:
    """The four networks of a model, and what they answer."""

    def __init__(self, folder: Path, name: str, serve: Callable[[Path], Any]) -> None:
        self.folder, self.name = folder, name
        self.variants = {suffix: serve(folder / f"{name}{suffix}" / "1") for suffix in ("", "_other", "_codes")}
        self.detector = serve(folder / f"{name}_detector" / "1")

    def recognize(self, pictures: np.ndarray, suffix: str = "") -> dict[str, np.ndarray]:
        return self.variants[suffix].call("recognize", {"picture": pictures})

    def detected(self, pictures: np.ndarray) -> np.ndarray:
        """The probability of not being known."""
        logits = self.detector.call("serving_default", {"picture": pictures})["logits"]
        return expit(logits[:, 1] - logits[:, 0])


def contracts_are_whole(served: Served, data: Data, schema: dict[str, Any]) -> None:
    for each in (*served.variants.values(), served.detector):
        schema.validate(each.contract)
    plain = served.variants[""].contract["recognition"]
    assert plain["classes"] == [*data.classes]
    assert plain["detector"] == {"model": f"{served.name}_detector", "known": 0}
    assert {*plain["scores"]} == {*METHODS}
    assert plain["range"] == [0.0, 1.0]
    assert served.variants["_other"].contract["recognition"]["other"] == len(data.classes)
    codes = np.array(served.variants["_codes"].contract["recognition"]["codes"])
    assert codes.shape == (len(data.classes), 15)
    assert served.detector.contract["recognition"]["classes"] == ["known", "unknown"]


def classes_are_told(served: Served, data: Data) -> None:
    for suffix, found in served.variants.items():
        logits = found.call("serving_default", {"picture": data.test.pictures})["logits"]
        if suffix == "_codes":
            codes = np.array(found.contract["recognition"]["codes"])
            logits = -np.abs(expit(logits)[:, None] - codes).sum(axis=2)
        told = logits[:, : len(data.classes)].argmax(axis=1)
        assert (told == data.test.labels).mean() >= 0.98


def reports_are_true(served: Served, data: Data) -> None:
    report = json.loads((served.folder / served.name / "1" / "assets.extra" / "report.json").read_text())
    known, near = (served.recognize(each) for each in (data.test.pictures, data.near))
    for method, reported in report["auroc"].items():
        found = auroc(known[f"scores/{method}"], near[f"scores/{method}"])
        assert abs(found - reported["near"]) < 2e-3


def threshold(served: Served, data: Data, score: str, suffix: str) -> float:
    """The largest score that is accepted at the level, by the calibration's pictures."""
    scores = np.sort(served.recognize(data.calibration.pictures, suffix)[score])
    return float(scores[int(np.ceil((len(scores) + 1) * (1 - LEVEL))) - 1])
