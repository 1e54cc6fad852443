"""SavedModels served in this process, loaded as TensorFlow Serving does, and exports that verify themselves in it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sluice.export import replay, verify

# Keras 3.15 turns its tensors into arrays in a way that numpy 2.4 wants written differently.
KERAS_ARRAYS = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


class Served:
    """A SavedModel in a Session. `contract` is the document its own signature gives."""

    def __init__(self, folder: Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
        self.signatures = loaded.signature_def
        self.contract = json.loads(self.call("contract", {"probe": [0]})["contract"][0])

    def call(self, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """The outputs by name; there must be exactly the signature's inputs."""
        definition = self.signatures[signature]
        assert inputs.keys() == definition.inputs.keys()
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        return self._session.run({name: info.name for name, info in definition.outputs.items()}, feeds)

    def dtype(self, signature: str, name: str) -> np.dtype:
        """The dtype of an input or output, as the signature itself says."""
        definition = self.signatures[signature]
        info = definition.inputs[name] if name in definition.inputs else definition.outputs[name]
        return np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], Served]]:
    opened: list[Served] = []

    def open_served(folder: Path) -> Served:
        opened.append(Served(folder))
        return opened[-1]

    yield open_served
    for served in opened:
        served.close()


@pytest.fixture(scope="session")
def quick_verification() -> Iterator[None]:
    """Exports verify themselves in this process, which saves a start of TensorFlow each."""

    def replayed(folder: Path, *files: Path) -> None:
        replay.main(str(folder), *map(str, files))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_run_replay", replayed)
        yield


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[2] / "docs" / "contract.schema.json").read_text(encoding="utf-8"))
