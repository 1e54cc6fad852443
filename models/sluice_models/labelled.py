"""Writes the rows that an example model is evaluated on, and the request for that evaluation.

Equal rows are equal bytes every time, so that a checksum says what was measured on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZES = (1, 7, 32, 100)  # at which everything is measured again, and compared


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with what is right for them, and what an evaluation does with them.

    Attributes:
        columns: by name, a value for each row: all of them arrays, or all of them lists. There are the signature's
            inputs and `label`; in some also `group`, by whose values figures are told apart, and `session`: rows of one
            value are, in their order, pieces of one session.
        task: "classification", "forecasting", "sequences" or "open_set".
        options: what the evaluation is told besides.
    """

    columns: Mapping[str, NDArray[Any] | Sequence[Any]]
    task: str
    options: Mapping[str, Any]


def write(labelled: Labelled, out: Path, name: str) -> Path:
    """Write OUT/NAME.labelled.npz, or .jsonl where the rows are lists, and OUT/NAME.evaluation.json; the latter."""
    columns = labelled.columns.items()
    arrays: dict[str, Any] = {column: values for column, values in columns if isinstance(values, np.ndarray)}
    rows = Path(out) / f"{name}.labelled.{'npz' if arrays else 'jsonl'}"
    if arrays:
        np.savez_compressed(rows, **arrays)
    else:
        _write_lines(labelled.columns, rows)
    request = {
        "model": name,
        "data": {"path": rows.name},
        "task": labelled.task,
        "batch_sizes": BATCH_SIZES,
        "options": labelled.options,
    }
    file = rows.with_name(f"{name}.evaluation.json")
    file.write_text(json.dumps(request, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return file


def _write_lines(columns: Mapping[str, NDArray[Any] | Sequence[Any]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        for row in zip(*columns.values(), strict=True):
            stream.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
