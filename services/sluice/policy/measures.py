"""How well scores tell known rows from unknown ones: AUROC, both error rates at 95 %, OSCR. Numbers in, numbers out.

It does not know where scores come from. Scores are float `[row]`, larger = stranger, one row or more of each kind.
Weights are float `[row]`, 0 or more with a sum above 0, how much each row counts; without them all count the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_CAUGHT = 0.95
_ROUNDING = 1e-12  # of a share that is reached


@dataclass(frozen=True, slots=True)
class Measures:
    """What a method reaches, each from 0 to 1.

    auroc: the probability that an unknown row is stranger than a known one; ties count half.
    unknown_accepted_at_95_known_accepted: the share of unknowns that pass for known where the threshold accepts 95 % of
    the knowns. The literature's FPR at 95 % TPR, where known is the positive class (OpenOOD).
    known_rejected_at_95_unknown_rejected: the share of knowns that are rejected where the threshold catches 95 % of the
    unknowns. The same name, where unknown is the positive class.
    oscr: the area under the open-set classification rate; AUROC that counts a known row only if its class is right.
    """

    auroc: float
    unknown_accepted_at_95_known_accepted: float
    known_rejected_at_95_unknown_rejected: float
    oscr: float


def measured(
    known: Array, right: Array, unknown: Array, known_weights: Array | None = None, unknown_weights: Array | None = None
) -> Measures:
    """All of them; right: bool `[row]`, whether a known row's class is answered right."""
    return Measures(
        auroc=auroc(known, unknown, known_weights, unknown_weights),
        unknown_accepted_at_95_known_accepted=accepted_at(known, unknown, _CAUGHT, known_weights, unknown_weights),
        known_rejected_at_95_unknown_rejected=accepted_at(-unknown, -known, _CAUGHT, unknown_weights, known_weights),
        oscr=oscr(known, right, unknown, known_weights, unknown_weights),
    )


def auroc(
    known: Array, unknown: Array, known_weights: Array | None = None, unknown_weights: Array | None = None
) -> float:
    """The area under the receiver operating characteristic, by ranks (Mann & Whitney 1947)."""
    return _mean(_stranger_than(known, unknown, known_weights), unknown_weights)


def accepted_at(
    own: Array, others: Array, share: float = _CAUGHT, own_weights: Array | None = None,
    others_weights: Array | None = None,
) -> float:  # fmt: skip
    """The share of `others` that are no larger than the least threshold up to which `share` of `own` lie."""
    order = np.argsort(own, kind="stable")
    up_to = np.cumsum(_weights(own, own_weights)[order])
    threshold = own[order[np.searchsorted(up_to, (share - _ROUNDING) * up_to[-1])]]
    return _mean(others <= threshold, others_weights)


def oscr(
    known: Array, right: Array, unknown: Array, known_weights: Array | None = None, unknown_weights: Array | None = None
) -> float:
    """The area under correct classification rate over accepted unknowns (Dhamija et al. 2018, "Reducing Network ...").

    For each unknown row: the share of known rows that are answered right and are less strange; ties count half.
    """
    weights = _weights(known, known_weights)
    if not weights[right].any():
        return 0.0
    return auroc(known[right], unknown, weights[right], unknown_weights) * _mean(right, weights)


def roc(known: Array, unknown: Array) -> tuple[Array, Array]:
    """The share of knowns and of unknowns that are rejected, by rising share, one point for each threshold."""
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    rejected = [1 - np.searchsorted(np.sort(each), thresholds, side="left") / len(each) for each in (known, unknown)]
    return np.concatenate([[0.0], rejected[0]]), np.concatenate([[0.0], rejected[1]])


def _stranger_than(known: Array, unknown: Array, known_weights: Array | None) -> Array:
    """For each unknown row the share of known rows that are less strange; ties count half."""
    order = np.argsort(known, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(_weights(known, known_weights)[order])])
    below, up_to = (before[np.searchsorted(known[order], unknown, side=side)] for side in ("left", "right"))
    return (below + up_to) / (2 * before[-1])  # type: ignore[no-any-return]


def _mean(values: Array, weights: Array | None) -> float:
    own = _weights(values, weights)
    return float((own * values).sum() / own.sum())


def _weights(rows: Array, weights: Array | None) -> Array:
    return np.ones(len(rows)) if weights is None else weights
