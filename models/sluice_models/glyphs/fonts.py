"""Draws single characters in the fonts that come with matplotlib, white on black."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Whole fonts, each in one part. Of each family, training has one weight, upright and slanted; of the other, calibration
# and test have one each, by turns upright and slanted. So these two have families, weights and slants in like number,
# which is what a promise about the test by its calibration rests on.
FONTS: dict[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSerif",
        "DejaVuSerif-Italic", "STIXGeneralBol", "STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10",
    ),
    "calibration": ("DejaVuSans-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif-BoldItalic", "STIXGeneral", "cmti10"),
    "test": ("DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSerif-Bold", "STIXGeneralItalic", "cmmi10"),
}  # fmt: skip

SIZE = 40

_FINER = 3  # drawn so many times finer, then averaged


@dataclass(frozen=True, slots=True)
class Variation:
    """How much letters of one font differ, each evenly from nothing up to this.

    Attributes:
        slant: degrees that upright strokes lean, to either side.
        stretch: how much wider or narrower; 0.25 is from 1 / 1.25 to 1.25 times.
        weight: how much strokes grow on each side, in heights of a capital letter.
    """

    slant: float = 0.0
    stretch: float = 0.0
    weight: float = 0.0


def drawn(
    random: np.random.Generator,
    fonts: Sequence[str],
    characters: str,
    count: int,
    size: int = SIZE,
    variation: Variation = Variation(),
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Characters turned, shifted and in different sizes, [count, size, size], and their places in `characters`."""
    places = np.arange(count) % len(characters)
    random.shuffle(places)
    chosen = random.integers(len(fonts), size=count)
    heights = random.uniform(0.42, 0.62, count)
    angles = random.uniform(-15, 15, count)
    shifts = random.uniform(-0.07, 0.07, (count, 2))
    (varied,) = random.spawn(1)
    slants = np.tan(np.radians(varied.uniform(-variation.slant, variation.slant, count)))
    widths = (1 + variation.stretch) ** varied.uniform(-1, 1, count)
    weights = varied.uniform(0, variation.weight, count)
    pictures = [
        _drawn(fonts[font], characters[place], size, height, weight, _turn(angle, slant, width), shift)
        for font, place, height, weight, angle, slant, width, shift in zip(
            chosen, places, heights, weights, angles, slants, widths, shifts, strict=True
        )
    ]
    return np.stack(pictures), places


def _turn(angle: float, slant: float, width: float) -> NDArray[np.float64]:
    """Where a letter's points go, across and down, [2, 2]: made wider, slanted to the right, turned to the left."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cos, sin], [-sin, cos]]) @ np.array([[1, -slant], [0, 1]]) @ np.diag([width, 1])


def has(font: str, character: str) -> bool:
    """Whether the font has a picture of this character."""
    return ord(character) in _characters(font)


@cache
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(_file(font)).get_charmap())


def _drawn(
    font: str,
    character: str,
    size: int,
    height: float,
    weight: float,
    turn: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`height` is that of a capital letter, and `shift` across and down, in parts of the picture."""
    fine = size * _FINER
    face, stroke = _face(font, round(fine * height)), fine * height * weight
    canvas = Image.new("L", (2 * fine, 2 * fine))
    ImageDraw.Draw(canvas).text((fine, fine), character, fill=255, font=face, anchor="mm", stroke_width=stroke)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 2 * fine, 2 * fine)
    centre = np.array([left + right, top + bottom]) / 2
    back = np.linalg.inv(turn)
    start = centre - back @ (fine * (0.5 + shift))
    affine = (*back[0], start[0], *back[1], start[1])
    turned = canvas.transform((fine, fine), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(turned.reduce(_FINER), np.float64) / 255


@cache
def _face(font: str, pixels: int) -> ImageFont.FreeTypeFont:
    """The font in which a capital letter is about so many pixels high."""
    return ImageFont.truetype(_file(font), round(pixels / 0.7))


def _file(font: str) -> str:
    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")
