"""Trains the networks that know the digits 0 to 5, and exports them."""

from pathlib import Path

from sluice.export import ScoreOptions
from sluice_models.digits import data
from sluice_models.openset import variants
from sluice_models.openset.networks import Recipe

SEED = 7
ABOUT = "Which of the digits 0 to 5 a handwritten one of 8 by 8 pixels is"
RECIPE = Recipe(filters=(32, 32, 64), strides=(1, 2, 2), epochs=40)
OPTIONS = ScoreOptions(neighbours=1)  # 5 does worse on the calibration's pictures


def build(out: Path, *networks: str) -> Path:
    """Train and export OUT/digits/1, and beside it digits_other, digits_codes and digits_detector; the first.

    Only `networks`, closed, other, codes or detector, if any are named.
    """
    return variants.build("digits", ABOUT, data.load(), RECIPE, OPTIONS, SEED, out, networks)
