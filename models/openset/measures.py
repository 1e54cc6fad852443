"""How well scores tell unknown from known: larger ones are stranger, whatever their scale."""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def auroc(known: Scores, unknown: Scores) -> float:
    """The probability that an unknown has a larger score than a known, ties counted half (Hanley & McNeil 1982)."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, "left") + np.searchsorted(ordered, unknown, "right")
    return float(below.mean() / (2 * len(known)))
