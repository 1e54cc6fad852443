"""Made-up rows with which a model server is tried, from what its signatures say."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Signature, Tensor, numpy_dtype

Array = NDArray[Any]


class Probe(NamedTuple):
    """A signature that can be tried; where an axis beside the batch is open, `uneven`, rows may have two shapes."""

    signature: Signature
    uneven: bool

    @property
    def numeric(self) -> bool:
        """Whether no input is text, which a model may want in a form that cannot be made up."""
        return all(tensor.dtype != "string" for tensor in self.signature.inputs.values())

    def inputs(self, rows: int, length: int) -> dict[str, Array]:
        """Rows whose open axes are all so long: ones, which are numbers, tokens, lengths and masks alike."""
        return {name: _ones(tensor, rows, length) for name, tensor in self.signature.inputs.items()}


def probe_of(served: ServedVersion) -> Probe | None:
    """How to try a version, with two shapes if it can; None: nothing of it can be called with made-up rows."""
    probes = [Probe(each, _is_uneven(each.inputs)) for each in _signatures(served)]
    return max(probes, key=lambda probe: (probe.uneven, probe.numeric), default=None)


def _signatures(served: ServedVersion) -> Iterator[Signature]:
    """Those of TensorFlow's signatures that batch rows, and of a contract's those that keep no state."""
    told = served.contract.signatures.values() if served.contract else ()
    hidden = {each.name for each in told if each.kind not in ("rows", "sequences")}
    hidden |= {"contract"} if served.contract else set()
    for name, signature in served.plain.items():
        if name not in hidden and signature.batch_axis == "assumed" and all(map(_is_known, signature.inputs.values())):
            yield signature


def _is_known(tensor: Tensor) -> bool:
    return tensor.ranked and tensor.dtype != "unknown"


def _is_uneven(inputs: Mapping[str, Tensor]) -> bool:
    return any(None in tensor.shape[1:] for tensor in inputs.values())


def _ones(tensor: Tensor, rows: int, length: int) -> Array:
    shape = (rows, *(length if size is None else size for size in tensor.shape[1:]))
    dtype = numpy_dtype(tensor.dtype)
    return np.full(shape, b"", dtype) if dtype.hasobject else np.ones(shape, dtype)
