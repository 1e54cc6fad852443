"""The judge of the demo: Keras, which runs each client's whole stretch alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float32]


def difference(keras_file: Path, answers: Iterable[tuple[Series, Series]]) -> float:
    """The largest |served - Keras| / max(1, |Keras|) over pairs of a series and what was answered to it."""
    import keras

    single = alone(keras.models.load_model(keras_file, compile=False))
    largest = 0.0
    for series, served in answers:
        expected = np.asarray(single(series[np.newaxis, :, np.newaxis]))[0, :, 0]
        error = np.abs(served - expected) / np.maximum(1.0, np.abs(expected))
        largest = max(largest, float(error.max()))
    return largest


def alone(trained: Any) -> Any:
    """The trained network for one client at a time: the same layers' weights, not stateful, batch size 1."""
    import keras
    import tensorflow as tf

    config = trained.get_config()
    for layer in config["layers"]:
        settings = layer["config"]
        if "batch_shape" in settings:
            settings["batch_shape"] = [1, None, 1]
        if settings.get("stateful"):
            settings["stateful"] = False
    single = keras.Sequential.from_config(config)
    for layer in trained.layers:
        weights = [variable for variable in layer.weights if variable.path.split("/")[-1] != "states"]
        single.get_layer(layer.name).set_weights([variable.numpy() for variable in weights])
    return tf.function(single, input_signature=[tf.TensorSpec([1, None, 1], tf.float32)])
