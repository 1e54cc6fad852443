"""Reads the labelled rows that `sluice models data` writes, as an evaluation would."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request for the evaluation, and the columns of the file that it names."""
    request = json.loads((folder / f"{name}.evaluation.json").read_text(encoding="utf-8"))
    assert request["model"] == name
    assert request["batch_sizes"] == [1, 7, 32, 100]
    file = folder / request["data"]["path"]
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return request, dict(arrays)
    rows = [json.loads(line) for line in file.read_bytes().decode().removesuffix("\n").split("\n")]
    return request, {column: [row[column] for row in rows] for column in rows[0]}
