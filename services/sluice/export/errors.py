"""What can go wrong in an export. Each sentence says what was expected, what came, and what to do."""

import keras


class ExportError(Exception):
    """The model was not exported, and nothing was left behind."""


class CannotStep(ExportError):
    """One layer of a recurrent model needs more than the current time step and the state.

    Attributes:
        layer: the layer's name.
        reason: why it cannot be run one time step at a time.
    """

    def __init__(self, layer: keras.Operation, reason: str) -> None:
        self.layer = layer.name
        self.reason = reason
        super().__init__(
            f"layer '{self.layer}' ({type(layer).__name__}) cannot be run one time step at a time: {reason}. "
            "Replace or remove it, then export again"
        )
