"""Draws single characters in the fonts that come with matplotlib, white on black."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# No letter of calibration or test has been seen in its font. Each family is in both lists.
FONTS: dict[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSansMono-BoldOblique", "DejaVuSerif-Bold",
        "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBolIta", "cmr10", "cmtt10", "cmmi10",
    ),
    "held_out": (
        "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif",
        "DejaVuSerif-Italic", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmss10",
    ),
}  # fmt: skip

SIZE = 40

_FINER = 3  # drawn so many times finer, then averaged


def drawn(
    random: np.random.Generator, fonts: Sequence[str], characters: str, count: int, size: int = SIZE
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Characters turned, shifted and in different sizes, [count, size, size], and their places in `characters`."""
    places = np.arange(count) % len(characters)
    random.shuffle(places)
    chosen = random.integers(len(fonts), size=count)
    heights = random.uniform(0.42, 0.62, count)
    angles = random.uniform(-15, 15, count)
    shifts = random.uniform(-0.07, 0.07, (count, 2))
    pictures = [
        _drawn(fonts[font], characters[place], size, height, angle, shift)
        for font, place, height, angle, shift in zip(chosen, places, heights, angles, shifts, strict=True)
    ]
    return np.stack(pictures), places


def has(font: str, character: str) -> bool:
    """Whether the font has a picture of this character."""
    return ord(character) in _characters(font)


@cache
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(_file(font)).get_charmap())


def _drawn(
    font: str, character: str, size: int, height: float, angle: float, shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`height` is that of a capital letter, and `shift` across and down, in parts of the picture."""
    fine = size * _FINER
    middle = np.array([fine, fine])
    canvas = Image.new("L", (2 * fine, 2 * fine))
    ImageDraw.Draw(canvas).text((fine, fine), character, fill=255, font=_face(font, round(fine * height)), anchor="mm")
    left, top, right, bottom = canvas.getbbox() or (0, 0, 2 * fine, 2 * fine)
    centre = np.array([left + right, top + bottom]) / 2
    turned = canvas.rotate(
        angle, Image.Resampling.BILINEAR, center=(*centre,), translate=(*(middle - centre + fine * shift),)
    )
    cut = turned.crop((fine // 2, fine // 2, fine // 2 + fine, fine // 2 + fine))
    return np.asarray(cut.reduce(_FINER), np.float64) / 255


@cache
def _face(font: str, pixels: int) -> ImageFont.FreeTypeFont:
    """The font in which a capital letter is about so many pixels high."""
    return ImageFont.truetype(_file(font), round(pixels / 0.7))


def _file(font: str) -> str:
    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")
