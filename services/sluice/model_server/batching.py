"""What TensorFlow Serving's batching refuses.

It forms no batches: every call runs as it came, as the gateway batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sluice.model_server.errors import InvalidArgument, ServingError

Array = NDArray[Any]

_ROWS = 1000  # TensorFlow Serving's own limit


@dataclass(frozen=True, slots=True)
class Batching:
    """`rows` is how many a request may have; None: any number, as it is split."""

    rows: int | None = _ROWS

    def check_inputs(self, inputs: Sequence[Array]) -> int:
        """How many rows a request has.

        Raises:
            InvalidArgument: an input has none, two differ, or they are too many.
        """
        if any(array.ndim == 0 for array in inputs):
            raise InvalidArgument("with --enable_batching every input has rows; a single value came")
        if len(rows := {len(array) for array in inputs}) != 1:
            raise InvalidArgument(f"with --enable_batching all inputs have as many rows; {sorted(rows)} came")
        found = rows.pop()
        if self.rows is not None and found > self.rows:
            raise InvalidArgument(
                f"Task size {found} is larger than maximum input batch size {self.rows} of --batching_parameters_file"
            )
        return found

    @staticmethod
    def check_outputs(outputs: Sequence[Array], rows: int) -> None:
        """Raises: ServingError: FAILED_PRECONDITION: an output has not the rows of the inputs."""
        for array in outputs:
            if array.shape[:1] != (rows,):
                said = f"with --enable_batching every output has as many rows as the inputs, {rows}"
                raise ServingError("FAILED_PRECONDITION", f"{said}; one is {[*array.shape]}")
