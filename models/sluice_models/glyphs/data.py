"""Pictures of printed letters, 40 by 40, and of what is none of the three known ones; drawn by seeded code."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sluice_models.glyphs.fonts import FONTS, SIZE, Variation, drawn, has
from sluice_models.openset import data, pictures
from sluice_models.openset.data import Data, Pictures, Split, as_pictures

CLASSES = ("A", "B", "C")
LETTERS = "DEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
# What the "other" class learns from besides spoilt letters: no letters, and no digits.
SIGNS = "&%@#$€£¥§¶?!*+±÷=<>≤≥≠∞∫√∂∇→←↑↓★♠♥♣♦♪■●▲◆{}[]~^"
SIGN_FONTS = ("DejaVuSans", "DejaVuSansMono-Bold", "STIXGeneralBol", "cmr10")

SEED = 3
TRAIN, CALIBRATION, TEST = 4800, 1800, 600
OUTLIERS, CALIBRATION_OUTLIERS = 4800, 600
NEAR, FAR = 690, 200  # far: of each kind
# Wide, so that letters of one font differ about as much as fonts do; widest in training, which so holds what the
# others hold, whatever their fonts.
VARIATION = Variation(slant=15, stretch=0.25, weight=0.05)
TRAIN_VARIATION = Variation(slant=25, stretch=0.35, weight=0.08)

Greys = NDArray[np.float64]


@cache
def load() -> Data:
    """All pictures; the same every time."""
    train, calibration, test = (
        _letters(part, count) for part, count in (("train", TRAIN), ("calibration", CALIBRATION), ("test", TEST))
    )
    return Data(
        classes=CLASSES,
        train=train,
        calibration=calibration,
        test=test,
        outliers=_outliers("train", OUTLIERS),
        calibration_outliers=_outliers("calibration", CALIBRATION_OUTLIERS),
        near=_unknown("near", LETTERS, NEAR),
        far=_far(test),
    )


def _letters(part: str, count: int) -> Split:
    random = _random(f"known {part}")
    clean, places = _drawn(random, part, FONTS[part], "".join(CLASSES), count)
    return Split(as_pictures(_noisy(random, clean)), places)


def _drawn(
    random: np.random.Generator, part: str, fonts: Sequence[str], characters: str, count: int
) -> tuple[Greys, NDArray[np.int64]]:
    variation = TRAIN_VARIATION if part == "train" else VARIATION
    return drawn(random, fonts, characters, count, variation=variation)


def _noisy(random: np.random.Generator, clean: Greys) -> Greys:
    """With noise of up to a tenth in each pixel, and a little less than full contrast."""
    count = len(clean)
    contrast, deviation = random.uniform(0.7, 1, (count, 1, 1)), random.uniform(0, 0.1, (count, 1, 1))
    return clean * contrast + random.normal(size=clean.shape) * deviation


def _unknown(kind: str, characters: str, count: int) -> Pictures:
    random = _random(kind)
    return as_pictures(_noisy(random, _drawn(random, "test", FONTS["test"], characters, count)[0]))


def letters(characters: str) -> Pictures:
    """These characters, one picture each, in fonts of the test."""
    return np.concatenate([_unknown(f"letter {each}", each, 1) for each in characters])


def _far(test: Split) -> dict[str, Pictures]:
    random = _random("far")
    grey = np.broadcast_to(random.uniform(0, 1, (FAR, 1, 1)), (FAR, SIZE, SIZE))
    return {
        "digits": _unknown("digits", DIGITS, FAR),
        "scribbles": as_pictures(_noisy(random, pictures.scribbles(random, FAR, SIZE))),
        "noise": as_pictures(pictures.noise(random, FAR, SIZE)),
        "blank": as_pictures(_noisy(random, grey)),
        "inverted": as_pictures(1 - test.pictures[:FAR, ..., 0]),
    }


def _outliers(part: str, count: int) -> Pictures:
    """Signs, letters turned over, halves of two letters, two letters in one place, shuffled quarters, waves, spots."""
    random = _random(f"outliers {part}")
    share = count // 8
    clean, places = _drawn(random, part, FONTS[part], "".join(CLASSES), 4 * share)
    signs = [_signs(random, part, font, share) for font in SIGN_FONTS]
    kinds = [
        np.concatenate(signs)[random.permutation(len(SIGN_FONTS) * share)[: 2 * share]],
        _turned_over(clean[:share], places[:share]),
        pictures.halves(random, clean, places, 2 * share),
        pictures.overlaid(random, clean, places, share),
        pictures.shuffled(random, clean, share),
        np.concatenate([pictures.waves(random, share // 2, SIZE), pictures.blobs(random, share - share // 2, SIZE)]),
    ]
    return as_pictures(_noisy(random, np.concatenate(kinds)))


def _signs(random: np.random.Generator, part: str, font: str, count: int) -> Greys:
    return _drawn(random, part, [font], "".join(sign for sign in SIGNS if has(font, sign)), count)[0]


def _turned_over(clean: Greys, places: NDArray[np.int64]) -> Greys:
    """A upside down; B and C, which are the same upside down, from right to left."""
    return np.where((places == 0)[:, None, None], clean[:, ::-1], clean[:, :, ::-1])


def _random(part: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *part.encode()])


def write_csv(out: Path) -> Path:
    """Write OUT/glyphs.csv, one line for each picture, and beside it the pictures as OUT/glyphs.npz."""
    return data.write_csv(load(), out, "glyphs")
