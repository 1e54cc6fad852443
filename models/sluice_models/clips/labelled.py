"""Held-out clips of all lengths as an evaluation takes them."""

import numpy as np

from sluice_models.clips.data import DIRECTIONS, LENGTHS, SIZE, held_out
from sluice_models.labelled import Labelled

CLIPS = 100  # of each length


def labelled() -> Labelled:
    """Clips padded to the longest with their lengths beside them, and their directions; groups are by length."""
    lengths = np.repeat(np.array(LENGTHS, np.int32), CLIPS)
    frames = np.zeros((len(lengths), LENGTHS[-1], SIZE, SIZE, 3), np.float32)
    directions = np.empty(len(lengths), np.int32)
    for i, length in enumerate(LENGTHS):
        rows = slice(i * CLIPS, (i + 1) * CLIPS)
        clips, found = held_out(length)
        frames[rows, :length], directions[rows] = clips[:CLIPS], found[:CLIPS]
    return Labelled(
        {"frames": frames, "lengths": lengths, "label": np.array(DIRECTIONS)[directions], "group": lengths},
        task="classification",
        options={"classes": DIRECTIONS, "output": "probabilities"},
    )
