"""The parts that the data of an open-set model have. It does not know where pictures come from."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]  # [n, size, size, 1], from 0 to 1
Labels = NDArray[np.int64]  # places in `Data.classes`


@dataclass(frozen=True, slots=True)
class Split:
    """Known pictures and what they show."""

    pictures: Pictures
    labels: Labels


@dataclass(frozen=True, slots=True)
class Data:
    """All pictures of an open-set model; no picture is in two parts.

    Attributes:
        classes: the text of each known class.
        train: what is learned.
        calibration: what thresholds and parameters are chosen by, together with `calibration_outliers`.
        test: what figures are about.
        outliers: what the "other" class and the detector learn to be nothing; of kinds that are not in the test.
        calibration_outliers: more of the same kinds.
        near: unknown pictures of the test that are like the known ones.
        far: by kind, unknown pictures of the test that are not.
    """

    classes: tuple[str, ...]
    train: Split
    calibration: Split
    test: Split
    outliers: Pictures
    calibration_outliers: Pictures
    near: Pictures
    far: Mapping[str, Pictures]

    @property
    def size(self) -> int:
        """How many pixels high and wide a picture is."""
        return self.train.pictures.shape[1]


def as_pictures(pictures: NDArray[Any]) -> Pictures:
    """[n, size, size] of any numbers to pictures: clipped to 0 … 1, in 255ths as in a picture file."""
    return (np.rint(np.clip(pictures, 0, 1) * 255) / 255).astype(np.float32)[..., None]


def write_csv(data: Data, out: Path, name: str) -> Path:
    """Write OUT/NAME.csv, one line for each picture (part, kind, number), and OUT/NAME.npz with the pictures by part.

    Pictures are uint8 [n, size, size]; a part's name with a slash is its kind.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    splits = {"train": data.train, "calibration": data.calibration, "test": data.test}
    parts = {part: (split.pictures, [data.classes[each] for each in split.labels]) for part, split in splits.items()}
    unknown = {
        "outliers": data.outliers,
        "calibration_outliers": data.calibration_outliers,
        "near": data.near,
        **{f"far/{kind}": pictures for kind, pictures in data.far.items()},
    }
    parts |= {part: (pictures, [""] * len(pictures)) for part, pictures in unknown.items()}
    arrays: dict[str, Any] = {
        part: np.rint(255 * pictures[..., 0]).astype(np.uint8) for part, (pictures, _) in parts.items()
    }
    np.savez(out / f"{name}.npz", **arrays)
    file = out / f"{name}.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["part", "number", "class"])
        rows.writerows([part, i, label] for part, (_, labels) in parts.items() for i, label in enumerate(labels))
    return file
