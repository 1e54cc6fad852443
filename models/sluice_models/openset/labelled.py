"""The test pictures of an open-set model as an evaluation takes them."""

import numpy as np

from sluice_models.labelled import Labelled
from sluice_models.openset.data import Data


def labelled(data: Data) -> Labelled:
    """Known pictures and their classes, and near and far unknown ones, whose label is empty."""
    far = np.concatenate([*data.far.values()])
    known = np.array(data.classes)[data.test.labels]
    parts = {"known": data.test.pictures, "near": data.near, "far": far}
    return Labelled(
        {
            "picture": np.concatenate([*parts.values()]),
            "label": np.concatenate([known, np.zeros(len(data.near) + len(far), known.dtype)]),
            "group": np.repeat([*parts], [len(pictures) for pictures in parts.values()]),
        },
        task="open_set",
        options={"classes": data.classes},
    )
