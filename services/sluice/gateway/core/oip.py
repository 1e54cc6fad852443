"""The Open Inference Protocol's requests on this gateway: rows go through the batcher, sequences are sessions.

It does not know HTTP, gRPC or JSON; the doors of the protocol do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.predict import Done, Predict, Prediction, Tasks, Terms
from sluice.gateway.upstream.catalog import Model, ServedVersion
from sluice.policy.batch import PRIORITIES
from sluice.policy.contract import Signature, Tensor, numpy_dtype
from sluice.policy.errors import BackendUnavailable, DeadlineExceeded, DtypeMismatch, ShapeMismatch
from sluice.wire.oip import DATATYPES, InferRequest, SequencePart
from sluice.wire.rest import DEFAULT_SIGNATURE, check_names
from sluice.wire.tensors import dtype_name

Array = NDArray[Any]

PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = ("binary_tensor_data", "parameters", "sequence", "model_repository")


class Inference:
    """Carries out infer requests of one model or another."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tasks = Tasks()
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def begin(
        self, model: str, version: int | None, asked: InferRequest, terms: Terms, done: Done
    ) -> Callable[[], None]:
        """Begin a request; what it returns cancels it. `done` is called from the loop, once, unless it is cancelled.

        Its own timeout can shorten the deadline, and its own priority goes first.

        Raises:
            SluiceError: it is refused.
        """
        if asked.timeout_s is not None:
            terms = terms._replace(deadline=min(terms.deadline, self._gateway.now() + asked.timeout_s))
        if asked.priority:
            terms = terms._replace(priority_s=_priority_s(asked.priority))
        if asked.sequence is not None:
            return self._tasks.begin(self._part(model, version, asked, terms), done)
        signature = asked.signature or DEFAULT_SIGNATURE
        predict = Predict(
            model, signature, partial(_read, asked.inputs), version,
            outputs=asked.outputs, priority_s=terms.priority_s,
        )  # fmt: skip
        return self._gateway.predictions.begin(predict, terms.deadline, done)

    async def _part(self, model: str, version: int | None, asked: InferRequest, terms: Terms) -> Prediction:
        """One request of a sequence: steps of the session that is named after it."""
        assert asked.sequence is not None
        # A sequence's requests run one after another, as they came; the lock goes with the last who has or awaits it.
        turn = self._turns.setdefault((model, asked.sequence.id), asyncio.Lock())
        try:
            async with asyncio.timeout_at(terms.deadline):
                await turn.acquire()
        except TimeoutError:
            raise DeadlineExceeded("The sequence's earlier requests were not answered in time.") from None
        try:
            await self._gateway.predictions.find(model, version, None, terms.deadline)
            return await self._played(model, version, asked, asked.sequence, terms)
        finally:
            turn.release()

    async def _played(
        self, model: str, version: int | None, asked: InferRequest, part: SequencePart, terms: Terms
    ) -> Prediction:
        id, opened = self._session_of(model, part.id), False
        try:
            if part.start:
                await self._gateway.open_session(model, version=version, id=id, if_exists="restart")
                opened = True
            outcome = await self._stepped(id, asked, terms)
        except BaseException:
            if opened:  # nobody was told that there is such a session
                self._close(id)
            raise
        if part.end:
            self._close(id)
        return outcome

    async def _stepped(self, id: str, asked: InferRequest, terms: Terms) -> Prediction:
        gateway = self._gateway
        session = gateway.session(id)
        served = gateway.catalog.get(session.model, session.slab.version)
        step = served.stepping("step")
        value, scans = _row(asked.inputs, step)
        begin = gateway.scan if scans else gateway.step
        ticket = begin(id, value, None, list(asked.outputs) or None, terms.deadline)
        ticket.priority_s = terms.priority_s
        answers = await gateway.engine.run(ticket)
        names = asked.outputs or answers.outputs
        return Prediction(served.version, {name: answers.outputs[name] for name in names})

    def _session_of(self, model: str, sequence: str) -> str:
        """The sequence's own name, unless that is a session of another model."""
        find, longer = self._gateway.engine.scheduler.sessions.find, f"{sequence}~{model}"
        taken = find(sequence)
        return longer if find(longer) or (taken is not None and taken.model != model) else sequence

    def _close(self, id: str) -> None:
        if self._gateway.engine.scheduler.sessions.find(id) is not None:
            self._gateway.close_session(id)

    async def served(self, model: str, version: int | None) -> ServedVersion:
        """As `Predictions.find`, within the time that a request has by default."""
        gateway = self._gateway
        return await gateway.predictions.find(model, version, None, gateway.deadline(None, gateway.now()))

    async def is_ready(self, model: str, version: int | None) -> bool:
        """Whether a model can be called.

        Raises:
            ModelNotFound, VersionNotFound: there is none.
        """
        try:
            await self.served(model, version)
        except BackendUnavailable:
            return False
        return True

    def models(self) -> Sequence[Model]:
        """The models that are known, by name."""
        return [model for _, model in sorted(self._gateway.catalog.models.items())]

    def versions(self, model: str) -> list[str]:
        return [str(version) for version in sorted(self._gateway.catalog.models[model].served)]

    @property
    def ready(self) -> bool:
        return self._gateway.catalog.ready and not self._gateway.draining


def signature_of(served: ServedVersion) -> Signature | None:
    """What infer takes if it names no signature: a step where the model has sessions; else the default one."""
    if served.contract is not None and served.contract.step is not None:
        return served.stepping("step")
    return served.predicts(DEFAULT_SIGNATURE)


def described(tensors: Mapping[str, Tensor]) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each tensor that the protocol has a datatype for; -1: any size, also of no rank."""
    known = ((name, DATATYPES.get(each.dtype), each.shape) for name, each in sorted(tensors.items()))
    return [
        (name, datatype, [-1 if size is None else size for size in shape])
        for name, datatype, shape in known
        if datatype
    ]


def _priority_s(priority: int) -> float:
    """The protocol counts from 1, the highest priority."""
    return PRIORITIES["high" if priority == 1 else "low"]


def _read(inputs: Mapping[str, Array], signature: Signature, _limit: int) -> Mapping[str, Array]:
    given = {name: array for name, array in inputs.items() if name not in signature.measures}
    check_names(given, signature.inputs)
    _check_dtypes(given, signature.inputs)
    return inputs


def _check_dtypes(inputs: Mapping[str, Array], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if inputs[name].dtype != numpy_dtype(tensor.dtype):
            wanted = DATATYPES.get(tensor.dtype, tensor.dtype)
            came = DATATYPES.get(dtype_name(inputs[name].dtype))
            raise DtypeMismatch(f"Input {name!r} takes the datatype {wanted}: {tensor}; {came} came.")


def _row(inputs: Mapping[str, Array], step: Signature) -> tuple[dict[str, Array], bool]:
    """The row of each input of a sequence's request, and whether it is a chunk of time steps."""
    check_names(inputs, step.inputs)
    _check_dtypes(inputs, step.inputs)
    for name, array in inputs.items():
        tensor = step.inputs[name]
        if array.shape[:1] != (1,) or array.ndim not in (len(tensor.axes), len(tensor.axes) + 1):
            row = ", ".join(["1", *map(str, tensor.axes[1:])])
            raise ShapeMismatch(
                f"Input {name!r} of a sequence is [{row}], or [{', '.join(['1', 'time', *map(str, tensor.axes[1:])])}] "
                f"for several time steps at once; a value of shape {list(array.shape)} came.",
                got=list(array.shape),
            )
    scans = {array.ndim > len(step.inputs[name].axes) for name, array in inputs.items()}
    if len(scans) > 1:
        raise ShapeMismatch("All inputs of a sequence's request have a time axis, or none has.")
    return {name: np.asarray(array[0, ...]) for name, array in inputs.items()}, scans.pop()
