"""Rows as a slow and obvious oracle has them: lists, which are written in every format by those who invented it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

Row = Mapping[str, Any]  # column → a number, a text, or nested lists
Write = Callable[[Path, Sequence[Row]], None]


def npz(file: Path, rows: Sequence[Row]) -> None:
    np.savez(file, **arrays(rows))


def deflated(file: Path, rows: Sequence[Row]) -> None:
    np.savez_compressed(file, **arrays(rows))


def by_column(file: Path, rows: Sequence[Row]) -> None:
    np.savez(file, **{name: np.asfortranarray(array) for name, array in arrays(rows).items()})


def deflated_by_column(file: Path, rows: Sequence[Row]) -> None:
    np.savez_compressed(file, **{name: np.asfortranarray(array) for name, array in arrays(rows).items()})


def jsonl(file: Path, rows: Sequence[Row]) -> None:
    blank = "\n\n" if len(rows) % 2 else "\n"
    file.write_text(blank.join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")


def csv(file: Path, rows: Sequence[Row]) -> None:
    """Vectors in a column for each number, and a byte order mark, as spreadsheets write it."""
    flat = [
        {
            (f"{name}.{place}" if isinstance(value, list) else name): each
            for name, value in row.items()
            for place, each in enumerate(value if isinstance(value, list) else [value])
        }
        for row in rows
    ]
    pd.DataFrame(flat).to_csv(file, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def columns(file: Path, rows: Sequence[Row]) -> None:
    """A Parquet file of several row groups."""
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    parquet.write_table(table, file, row_group_size=max(1, len(rows) // 3))


def arrays(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


FORMATS: Mapping[str, tuple[str, Write]] = {
    "npz": (".npz", npz),
    "deflated npz": (".npz", deflated),
    "npz by column": (".npz", by_column),
    "deflated npz by column": (".npz", deflated_by_column),
    "jsonl": (".jsonl", jsonl),
    "csv": (".csv", csv),
    "parquet": (".parquet", columns),
}
