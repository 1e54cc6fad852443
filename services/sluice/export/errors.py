"""What can go wrong in an export. Each sentence says what was expected, what came, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import keras

# What TensorFlow and Keras put into a sentence for terminals and for themselves.
_MARKS = re.compile(r"\x1b\[[0-9;]*m|\{\{.*?\}\}| \[Op:\w+\]")
_LONGEST = 300  # characters of another library's message; Keras writes a model's whole configuration
_WRAPPED = re.compile(r"Exception encountered when calling \S+\s*(.*?)\s*Arguments received by", re.DOTALL)


class ExportError(Exception):
    """The model was not exported, and nothing was left behind."""


class CannotStep(ExportError):
    """One layer of a recurrent model needs more than the current time step and the state.

    Attributes:
        layer: the layer's name.
        reason: why it cannot be run one time step at a time.
        sentence: both, without what to do.
    """

    def __init__(self, layer: keras.Operation, reason: str) -> None:
        self.layer = layer.name
        self.reason = reason
        self.sentence = f"{named(layer)} cannot be run one time step at a time: {reason}"
        super().__init__(f"{self.sentence}. Replace or remove it, or export without steps, for whole sequences alone")


def named(layer: keras.Operation) -> str:
    """A layer by its name and type."""
    return f"layer '{layer.name}' ({type(layer).__name__})"


@contextmanager
def refused(done: str) -> Iterator[None]:
    """Whatever a model's own layers raise while it is `done` is why it is not exported.

    Raises:
        ExportError: in place of any other exception.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"the model cannot be {done}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What another library says, on one line."""
    text = _MARKS.sub("", str(error))
    if wrapped := _WRAPPED.search(text):
        text = wrapped[1]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
