"""One loaded model version: a SavedModel in a Session of its own, as TensorFlow Serving loads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.model_server.batching import Batching
from sluice.model_server.errors import InvalidArgument, ServingError, from_tensorflow, status_of
from sluice.model_server.runtime import config_pb2, tf
from sluice.policy.contract import Signature
from sluice.wire.signatures import plain_signature
from sluice.wire.tensors import dtype_name, read_tensor

Array = NDArray[Any]

_SERVE = "serve"
_INTERNAL = "__saved_model"


@dataclass(frozen=True, slots=True)
class Threads:
    """TensorFlow's thread pools; 0 is its own choice. Many small batches want 1 and 1, few large ones want more."""

    intra_op: int = 0
    inter_op: int = 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A signature that can be called without looking anything up."""

    inputs: Mapping[str, np.dtype[Any]]
    defaults: Mapping[str, Array]
    outputs: tuple[str, ...]
    call: Callable[..., Sequence[Any]]


class Servable:
    """A loaded version. The Session is closed when the last one who holds this object lets go of it.

    With `batching`, requests are refused that TensorFlow Serving could not batch.

    Raises:
        ServingError: the folder holds no SavedModel that can be loaded.
    """

    def __init__(
        self, path: Path, threads: Threads, tags: Sequence[str] = (_SERVE,), batching: Batching | None = None
    ) -> None:
        self._batching = batching
        graph = tf.Graph()
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads.intra_op,
            inter_op_parallelism_threads=threads.inter_op,
            use_per_session_threads=True,
        )
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                loaded = tf.compat.v1.saved_model.loader.load(self._session, [*tags], str(path))
            shown = {name: each for name, each in loaded.signature_def.items() if not name.startswith(_INTERNAL)}
            self._prepared = {name: self._prepare(each) for name, each in shown.items()}
        except Exception as error:  # whatever lies there, the server goes on
            raise ServingError(_status_of(error, path), f"{path} cannot be loaded: {error}") from error
        self.definitions: Mapping[str, Any] = dict(loaded.signature_def)  # those of TensorFlow's own use, too
        self.signatures: Mapping[str, Signature] = {name: plain_signature(name, each) for name, each in shown.items()}

    def predict(self, signature: str, inputs: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """Run a signature: input name → array in, output name → array out; none `wanted` means all outputs.

        An input for which the signature has a default may be left out.

        Raises:
            InvalidArgument: names, dtypes or shapes that the signature does not take.
            ServingError: TensorFlow's own error, with its code.
        """
        prepared = self._prepared.get(signature)
        if prepared is None:
            raise ServingError("FAILED_PRECONDITION", f"there is no signature {signature!r}; {self.listed()}")
        _check_wanted(wanted, prepared.outputs)
        feed = _feed({**prepared.defaults, **inputs}, prepared.inputs)
        batching = self._batching if len(wanted) in (0, len(prepared.outputs)) else None  # some outputs: not batched
        rows = batching.check_inputs(feed) if batching else 0
        try:
            values = prepared.call(*feed)
        except (tf.errors.OpError, ValueError) as error:
            raise from_tensorflow(error) from None
        outputs = {name: _array(value) for name, value in zip(prepared.outputs, values, strict=True)}
        if batching:
            batching.check_outputs([*outputs.values()], rows)
        return {name: outputs[name] for name in wanted} if wanted else outputs

    def _prepare(self, definition: Any) -> _Prepared:
        inputs, outputs = sorted(definition.inputs), sorted(definition.outputs)
        call = self._callable(
            [definition.inputs[name].name for name in inputs], [definition.outputs[name].name for name in outputs]
        )
        dtypes = {name: np.dtype(tf.as_dtype(definition.inputs[name].dtype).as_numpy_dtype) for name in inputs}
        defaults = {name: read_tensor(tensor) for name, tensor in definition.defaults.items()}
        return _Prepared(dtypes, defaults, tuple(outputs), call)

    def _callable(self, feed: list[str], fetch: list[str]) -> Callable[..., Sequence[Any]]:
        """From arrays to arrays without Session.run's look at every argument, which takes as long as a small model.

        TensorFlow's public `make_callable` goes through Session.run as soon as there are inputs.
        """
        try:
            call: Callable[..., Sequence[Any]] = self._session._make_callable_from_options(  # noqa: SLF001
                config_pb2.CallableOptions(feed=feed, fetch=fetch)
            )
        except tf.errors.OpError as error:  # such as an output that is an input: the other signatures can be called
            return partial(_raise, error)
        return call

    def listed(self) -> str:
        """The signatures, for people."""
        return f"the model has {', '.join(sorted(self._prepared))}"


def _feed(inputs: Mapping[str, Array], wanted: Mapping[str, np.dtype[Any]]) -> list[Array]:
    """The arrays in the order of `wanted`."""
    if inputs.keys() != wanted.keys():
        raise InvalidArgument(f"the signature takes the inputs {sorted(wanted)}; {sorted(inputs)} came")
    for name, dtype in wanted.items():
        if inputs[name].dtype != dtype:
            raise InvalidArgument(f"input {name!r} is {dtype_name(dtype)}; {dtype_name(inputs[name].dtype)} came")
    return [inputs[name] for name in wanted]


def _check_wanted(wanted: Sequence[str], outputs: Sequence[str]) -> None:
    if unknown := [name for name in wanted if name not in outputs]:
        raise InvalidArgument(f"there is no output {', '.join(unknown)}; the signature has {', '.join(outputs)}")
    if len(set(wanted)) != len(wanted):
        raise InvalidArgument(f"the same output is asked for twice: {', '.join(wanted)}")


def _status_of(error: Exception, path: Path) -> str:
    """As TensorFlow Serving tells it, whose loader has a code for a file that is not there or cannot be parsed."""
    if isinstance(error, OSError):
        return "DATA_LOSS" if any(path.glob("saved_model.pb*")) else "NOT_FOUND"
    return status_of(error)


def _raise(error: Exception, *_: Array) -> Sequence[Any]:
    raise error.with_traceback(None)


def _array(value: Any) -> Array:
    """An output as TensorFlow gives it; a single string comes as `bytes`, which numpy alone would cut at a zero."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
