"""How well scores tell unknown from known: larger scores are stranger, whatever their scale."""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def auroc(known: Scores, unknown: Scores) -> float:
    """The probability that an unknown has a larger score than a known, ties counted half (Hanley & McNeil 1982)."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, "left") + np.searchsorted(ordered, unknown, "right")
    return float(below.mean() / (2 * len(known)))


def known_rejected(known: Scores, unknown: Scores, caught: float = 0.95) -> float:
    """The share of knowns that are rejected by the highest threshold that rejects this share of unknowns."""
    threshold = np.sort(unknown)[::-1][int(np.ceil(caught * len(unknown))) - 1]
    return float((known >= threshold).mean())


def unknown_accepted(known: Scores, unknown: Scores, accepted: float = 0.95) -> float:
    """The share of unknowns that are accepted by the lowest threshold that accepts this share of knowns."""
    threshold = np.sort(known)[int(np.ceil(accepted * len(known))) - 1]
    return float((unknown <= threshold).mean())


def oscr(known: Scores, right: NDArray[np.bool_], unknown: Scores) -> float:
    """The area under the share of knowns accepted and classified rightly, over unknowns accepted (Dhamija et al. 2018).

    Args:
        known: scores of knowns, [n].
        right: whether each is classified rightly, [n].
        unknown: scores of unknowns, [m].
    """
    return auroc(known[right], unknown) * float(right.mean()) if right.any() else 0.0
