"""Exports one model of the bench, random weights where it has any.

`python -m loadtests.bench.exports.steps NAME FOLDER`
"""

import shutil
import sys
from pathlib import Path

from loadtests.bench.workloads.steps import FEATURES, INPUT, MODELS, OUTPUT, PLAIN, PLAIN_INPUT, PLAIN_OUTPUT, Model
from sluice.log import quiet_import

with quiet_import():
    import keras
    import tensorflow as tf

    from sluice.export import export

_SEED = 5


def main(name: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if name == PLAIN:
        _export_plain(folder)
    else:
        _export_recurrent(next(model for model in MODELS if model.name == name), folder)


def _export_plain(folder: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.float32, PLAIN_INPUT)])
    def halve_and_add_two(rows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {PLAIN_OUTPUT: rows / 2 + 2}

    tf.saved_model.save(tf.Module(), str(folder), signatures=halve_and_add_two)


def _export_recurrent(model: Model, folder: Path) -> None:
    keras.utils.set_random_seed(_SEED)
    layers = [keras.layers.LSTM(model.units, return_sequences=True) for _ in range(model.layers)]
    inputs = keras.Input((None, FEATURES), name=INPUT)
    network = keras.Sequential([inputs, *layers, keras.layers.Dense(FEATURES, name=OUTPUT)], name=model.name)
    export(network, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
