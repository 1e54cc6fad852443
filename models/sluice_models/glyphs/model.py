"""Trains the networks that know three letters, and exports them."""

from pathlib import Path

from sluice.export import ScoreOptions
from sluice_models.glyphs import data
from sluice_models.openset import variants
from sluice_models.openset.networks import Recipe

SEED = 7
ABOUT = "Which of the letters A, B and C a printed one of 40 by 40 pixels is"
RECIPE = Recipe(filters=(12, 24, 48, 48), strides=(2, 2, 2, 2), epochs=3, batch_size=32, pixels=2.0)
OPTIONS = ScoreOptions(neighbours=1)  # 5 does worse on the calibration's pictures


def build(out: Path, *networks: str) -> Path:
    """Train and export OUT/glyphs/1, and beside it glyphs_other, glyphs_codes and glyphs_detector; the first.

    Only `networks`, closed, other, codes or detector, if any are named.
    """
    return variants.build("glyphs", ABOUT, data.load(), RECIPE, OPTIONS, SEED, out, networks)
