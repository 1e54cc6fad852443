"""scikit-learn's handwritten digits, 8 by 8: 0 to 5 known, 6 to 9 unknown, and pictures of other things.

The digits are those of the UCI repository (Alpaydin & Kaynak 1998), which come with scikit-learn.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images

from sluice_models.glyphs.fonts import drawn
from sluice_models.openset import data, pictures
from sluice_models.openset.data import Data, Pictures, Split, as_pictures

CLASSES = ("0", "1", "2", "3", "4", "5")
SIZE = 8
# Letters that nobody takes for a digit; O, I, S, Z and their like are left out.
LETTERS = "ABEFHKMNPRTVWX"
LETTER_FONTS = ("DejaVuSans-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif", "STIXGeneralBol", "cmss10")

SEED = 5
PARTS = (0.5, 0.25)  # of the known digits: train, calibration; the rest is the test
OUTLIERS, CALIBRATION_OUTLIERS = 1200, 300
FAR = 300  # of each kind

Greys = NDArray[np.float64]


@cache
def load() -> Data:
    """All pictures; the same every time."""
    every = load_digits()
    greys, labels = every.images / 16, every.target.astype(np.int64)
    known = _random("split").permutation(np.flatnonzero(labels < len(CLASSES)))
    ends = [round(sum(PARTS[: i + 1]) * len(known)) for i in range(len(PARTS))]
    train, calibration, test = np.split(known, ends)
    return Data(
        classes=CLASSES,
        train=Split(as_pictures(greys[train]), labels[train]),
        calibration=Split(as_pictures(greys[calibration]), labels[calibration]),
        test=Split(as_pictures(greys[test]), labels[test]),
        outliers=_outliers("train", greys[train], labels[train], OUTLIERS),
        calibration_outliers=_outliers("calibration", greys[calibration], labels[calibration], CALIBRATION_OUTLIERS),
        near=as_pictures(greys[labels >= len(CLASSES)]),
        far=_far(),
    )


def _far() -> dict[str, Pictures]:
    random = _random("far")
    return {
        "letters": as_pictures(drawn(random, LETTER_FONTS, LETTERS, FAR, SIZE)[0]),
        "noise": as_pictures(pictures.noise(random, FAR, SIZE)),
        "photographs": as_pictures(_patches(random)),
    }


def letters(characters: str) -> Pictures:
    """These characters, one picture each, in the first of the fonts."""
    random = _random("letters")
    return as_pictures(np.concatenate([drawn(random, LETTER_FONTS[:1], each, 1, SIZE)[0] for each in characters]))


def _patches(random: np.random.Generator) -> Greys:
    """Squares of scikit-learn's two sample photographs, from 8 to 64 pixels wide, in grey and made 8 wide."""
    found = np.empty((FAR, SIZE, SIZE))
    photographs = [each.mean(axis=2) / 255 for each in load_sample_images().images]
    for i in range(FAR):
        photograph = photographs[i % len(photographs)]
        finer = random.integers(1, 9)
        y, x = (random.integers(each - SIZE * finer) for each in photograph.shape)
        square = photograph[y : y + SIZE * finer, x : x + SIZE * finer]
        found[i] = square.reshape(SIZE, finer, SIZE, finer).mean(axis=(1, 3))
    return found


def _outliers(part: str, greys: Greys, labels: NDArray[np.int64], count: int) -> Pictures:
    """Halves of two digits, two digits in one place, shuffled quarters, scribbles, waves and spots."""
    random = _random(f"outliers {part}")
    share = count // 8
    kinds = [
        pictures.halves(random, greys, labels, 3 * share),
        pictures.overlaid(random, greys, labels, share),
        pictures.shuffled(random, greys, share),
        pictures.scribbles(random, 2 * share, SIZE),
        pictures.waves(random, share // 2, SIZE),
        pictures.blobs(random, share - share // 2, SIZE),
    ]
    return as_pictures(np.concatenate(kinds))


def _random(part: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *part.encode()])


def write_csv(out: Path) -> Path:
    """Write OUT/digits.csv, one line for each picture, and beside it the pictures as OUT/digits.npz."""
    return data.write_csv(load(), out, "digits")
