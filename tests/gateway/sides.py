"""Calibrations of the puppet's model `sides`, and what tests say to it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

RECOGNIZE = "/v1/models/sides:recognize"
HUNDREDTHS = [round(0.01 * n, 2) for n in range(1, 100)]  # 99 scores: each is a hundredth of the p-values
LEFT, RIGHT = [0.1, 0.2], [0.9, 0.3]
STRANGE = [0.9, 0.97]  # beyond 95 of 99 by knn


def document(**more: Any) -> dict[str, Any]:
    """A calibration in which a row's p-value by knn is, but for rounding, 1 less its score."""
    knn = {"scores": HUNDREDTHS}
    found = {
        "schema": 1, "model": "sides", "version": 1, "made_at": "2026-11-26T05:00:00Z", "level": 0.05, "rows": 99,
        "data": {"sha256": "0" * 64}, "default_method": "knn", "temperature": 1.0,
        "methods": {
            "knn": knn, "detector": {"scores": HUNDREDTHS}, "vim": {"scores": [0.5, 0.6]},
            "max_logit": {"scores": np.linspace(-4, -3, 99).tolist()},
        },
        "sets": {"scores": HUNDREDTHS},
    }  # fmt: skip
    return found | more


def put(folder: Path, value: Any, name: str | None = None) -> Path:
    """A file of the folder, written at once as a careful program does: a document, or bytes."""
    file = folder / (name or f"{value['model']}-{value['version']}.json")
    hidden = folder / f".{file.name}"
    hidden.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return hidden.replace(file)
