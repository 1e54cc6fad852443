"""Exports a model of the recognition cases: `python -m loadtests.bench.exports.recognizer NAME FOLDER`."""

import shutil
import sys
from pathlib import Path

import numpy as np

from loadtests.bench.workloads.recognition import CLASSES, DETECTOR, SIZE
from sluice.log import quiet_import

with quiet_import():
    import keras

    from sluice.export.recognition import Classes, Detector
    from sluice.export.recognizer import export_recognizer

_SEED, _ROWS, _FEATURES = 5, 1200, "features"


def main(name: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    keras.utils.set_random_seed(_SEED)
    classes = Classes(["known", "unknown"]) if name == DETECTOR else _classes()
    dice = np.random.default_rng(_SEED)
    pictures = dice.uniform(0, 1, (_ROWS, SIZE, SIZE, 1)).astype(np.float32)
    labels = np.arange(_ROWS) % len(classes.names)
    methods = () if name == DETECTOR else ("knn",)
    export_recognizer(
        _network(name, len(classes.names)), _FEATURES, (pictures, labels), folder, classes=classes, methods=methods
    )


def _classes() -> Classes:
    return Classes([str(digit) for digit in range(CLASSES)], detector=Detector(DETECTOR, 0))


def _network(name: str, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="picture"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(48, activation="relu", name=_FEATURES),
            layers.Dense(outputs, name="logits"),
        ],
        name=name,
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
