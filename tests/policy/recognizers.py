"""A classifier of three classes, its contract and a calibration, made up for tests."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sluice.policy.contract import Recognition
from sluice.policy.contract_document import parse_contract
from sluice.policy.recognition import Calibrated, Calibration, score_of
from sluice.policy.scores import fit_openmax

CLASSES = ("cat", "dog", "owl")
BOOK = [
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0],
    [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1],
    [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1],
]
_BATCH = {"name": "batch"}


def tensor(*sizes: int, dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "axes": [_BATCH, *({"name": f"axis_{i}", "size": size} for i, size in enumerate(sizes))]}


def recognition_document(width: int = 3, **fields: Any) -> dict[str, Any]:
    """A contract with recognition, fresh and free to be spoiled; `fields` are added to the section."""
    given = {"kind": "rows", "inputs": {"x": tensor(4)}}
    logits = {"logits": tensor(width)}
    return {
        "schema": 1,
        "summary": "three animals",
        "signatures": {
            "serving_default": {**given, "outputs": logits},
            "recognize": {**given, "outputs": {**logits, "scores/knn": tensor(), "scores/vim": tensor()}},
        },
        "recognition": {
            "signature": "serving_default",
            "logits": "logits",
            "classes": list(CLASSES),
            "scores_signature": "recognize",
            "scores": {"knn": "scores/knn", "vim": "scores/vim"},
            **fields,
        },
    }


def recognition_of(width: int = 3, **fields: Any) -> Recognition:
    found = parse_contract(recognition_document(width, **fields)).recognition
    assert found is not None
    return found


PLAIN = recognition_of()
OTHER = recognition_of(4, other=3)
CODES = recognition_of(15, codes=BOOK)
DETECTED = recognition_of(detector={"model": "animal_detector", "known": 1})


def rows_of(rng: np.random.Generator, labels: np.ndarray, strength: float = 6.0) -> tuple[np.ndarray, dict[str, Any]]:
    """Logits `[row, 3]` and the model's own scores of rows of these classes."""
    logits = strength * np.eye(3)[labels] + rng.normal(scale=2, size=(len(labels), 3))
    own = {method: rng.normal(size=len(labels)) ** 2 for method in ("knn", "vim", "detector")}
    return logits.astype(np.float32), own


def calibration_of(
    recognition: Recognition, methods: tuple[str, ...], logits: np.ndarray, own: Mapping[str, np.ndarray],
    labels: np.ndarray, *, by_class: bool = False, temperature: float = 1.5,
) -> Calibration:  # fmt: skip
    """A calibration as `sluice calibrate` makes one, but that everything is fitted to the same rows."""
    known = logits[:, :3]
    openmax = fit_openmax(known, labels) if "openmax" in methods else None
    answered = known.argmax(axis=1)
    calibrated = {}
    for method in methods:
        found = score_of(recognition, method, logits, own, temperature, openmax)
        classes = {name: np.sort(found[answered == place]) for place, name in enumerate(CLASSES)} if by_class else None
        calibrated[method] = Calibrated(np.sort(found), classes)
    return Calibration(
        model="animals",
        version=2,
        made_at="2026-11-26T05:00:00Z",
        level=0.05,
        rows=len(labels),
        checksum="ab" * 32,
        default_method=methods[0],
        temperature=temperature,
        methods=calibrated,
        openmax=openmax,
        set_scores=np.sort(1 - np.exp(known - np.logaddexp.reduce(known, axis=1)[:, None])[range(len(labels)), labels]),
        unknown={"knn": {"auroc": 0.97}},
    )
