"""Exports one model of the bench with random weights: `python -m loadtests.bench.export NAME FOLDER`."""

import shutil
import sys
from pathlib import Path

from loadtests.bench.workload import FEATURES, INPUT, MODELS, OUTPUT
from services.log import quiet_import

with quiet_import():
    import keras

    from models.export import export

_SEED = 5


def main(name: str, folder: Path) -> None:
    model = next(model for model in MODELS if model.name == name)
    keras.utils.set_random_seed(_SEED)
    layers = [keras.layers.LSTM(model.units, return_sequences=True) for _ in range(model.layers)]
    inputs = keras.Input((None, FEATURES), name=INPUT)
    network = keras.Sequential([inputs, *layers, keras.layers.Dense(FEATURES, name=OUTPUT)], name=name)
    shutil.rmtree(folder, ignore_errors=True)
    export(network, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
