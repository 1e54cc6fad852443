"""What is asked of both open-set models, `digits` and `glyphs`."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from scipy.special import expit

from sluice.export.scores import METHODS
from sluice.policy.measures import auroc
from sluice_models.openset.data import Data
from tests.models.labelled_rows import read

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


def rows_of_an_evaluation_are_the_test(folder: Path, name: str, data: Data) -> None:
    request, rows = read(folder, name)
    assert (request["task"], request["options"]) == ("open_set", {"classes": [*data.classes]})
    far = np.concatenate([*data.far.values()])
    groups = {"known": data.test.pictures, "near": data.near, "far": far}
    assert {*rows["group"]} == {*groups}
    for group, pictures in groups.items():
        np.testing.assert_array_equal(rows["picture"][rows["group"] == group], pictures, strict=True)
    known = rows["group"] == "known"
    assert rows["label"][known].tolist() == [data.classes[label] for label in data.test.labels]
    assert {*rows["label"][~known]} == {""}


class Served:
    """The networks of a model by suffix, each opened when it is first asked for, and what they answer."""

    def __init__(self, folder: Path, name: str, serve: Callable[[Path], Any]) -> None:
        self.folder, self.name = folder, name
        self.network = cache(lambda suffix: serve(folder / f"{name}{suffix}" / "1"))

    def contract(self, suffix: str) -> dict[str, Any]:
        return self.network(suffix).contract["recognition"]

    def recognize(self, pictures: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
        return self.network(suffix).call("recognize", {"picture": pictures})

    def detected(self, pictures: np.ndarray) -> np.ndarray:
        """The probability of not being known."""
        logits = self.network("_detector").call("serving_default", {"picture": pictures})["logits"]
        return expit(logits[:, 1] - logits[:, 0])


def contracts_are_whole(served: Served, data: Data, schema: Draft202012Validator) -> None:
    """Of all networks but the one with output codes."""
    for suffix in ("", "_other", "_detector"):
        schema.validate(served.network(suffix).contract)
    assert served.contract("")["classes"] == [*data.classes]
    assert served.contract("")["detector"] == {"model": f"{served.name}_detector", "known": 0}
    assert served.contract("_detector")["classes"] == ["known", "unknown"]
    other_is_a_class(served, data)


def codes_are_named(served: Served, data: Data, schema: Draft202012Validator) -> None:
    schema.validate(served.network("_codes").contract)
    assert np.array(served.contract("_codes")["codes"]).shape == (len(data.classes), 15)


def other_is_a_class(served: Served, data: Data) -> None:
    assert served.contract("_other")["other"] == len(data.classes)
    assert {*served.contract("_other")["scores"]} == {*METHODS}
    assert served.contract("_other")["range"] == [0.0, 1.0]


def classes_are_told(served: Served, data: Data, suffix: str) -> None:
    logits = served.network(suffix).call("serving_default", {"picture": data.test.pictures})["logits"]
    if suffix == "_codes":
        logits = -np.abs(expit(logits)[:, None] - np.array(served.contract(suffix)["codes"])).sum(axis=2)
    told = logits[:, : len(data.classes)].argmax(axis=1)
    assert (told == data.test.labels).mean() >= 0.98


def reports_are_true(served: Served, data: Data, suffix: str) -> None:
    report = json.loads((served.folder / f"{served.name}{suffix}" / "1" / "assets.extra" / "report.json").read_text())
    known, near = (served.recognize(each, suffix) for each in (data.test.pictures, data.near))
    for method, reported in report["auroc"].items():
        found = auroc(known[f"scores/{method}"], near[f"scores/{method}"])
        assert abs(found - reported["near"]) < 2e-3


def threshold(served: Served, data: Data, score: str, suffix: str) -> float:
    """The largest score that is accepted at the level, by the calibration's pictures."""
    scores = np.sort(served.recognize(data.calibration.pictures, suffix)[score])
    return float(scores[int(np.ceil((len(scores) + 1) * (1 - LEVEL))) - 1])
