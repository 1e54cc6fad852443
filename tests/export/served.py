"""SavedModels served in this process, loaded as TensorFlow Serving does, and exports that verify themselves in it."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from jsonschema import Draft202012Validator

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

    @cached_property
    def contract(self) -> dict[str, Any]:
        return json.loads(self.call("contract", {"probe": [0]})["contract"][0])

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

    def replay(self, calls_file: str, answers_file: str) -> None:
        """As an export's verification does in a process of its own."""
        replay.replay(self._session, self.signatures, calls_file, answers_file)

    def close(self) -> None:
        self._session.close()


class Opened:
    """What has been opened; the session in which an export verified itself is the one that then serves it."""

    def __init__(self) -> None:
        self._all: list[Served] = []
        self._verified: dict[Path, Served] = {}

    def folder(self, folder: Path) -> Served:
        return self._verified.pop(folder, None) or self._open(folder)

    def verifying(self, folder: Path) -> Served:
        self._verified = {folder.with_name(folder.name.removeprefix("exporting-")): self._open(folder)}
        return next(iter(self._verified.values()))

    def _open(self, folder: Path) -> Served:
        self._all.append(Served(folder))
        return self._all[-1]

    def close(self) -> None:
        for served in self._all:
            served.close()


@pytest.fixture(scope="session")
def opened() -> Iterator[Opened]:
    with closing(Opened()) as opened:
        yield opened


@pytest.fixture(scope="session")
def serve(opened: Opened) -> Callable[[Path], Served]:
    return opened.folder


@contextmanager
def verified_by(opened: Opened) -> Iterator[None]:
    """Exports verify themselves in this process, which saves a start of TensorFlow each."""

    def replayed(folder: Path, *files: Path) -> None:
        opened.verifying(folder).replay(*map(str, files))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_run_replay", replayed)
        yield


@pytest.fixture(scope="session")
def quick_verification(opened: Opened) -> Iterator[None]:
    with verified_by(opened):
        yield


@pytest.fixture(scope="session")
def schema() -> Draft202012Validator:
    """Judges contracts as the page of their schema says."""
    page = json.loads((Path(__file__).parents[2] / "docs" / "contract.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(page)
    return Draft202012Validator(page)
