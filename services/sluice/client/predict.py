"""Predict calls: values to what a signature takes; signatures are asked once, and again when they may have changed.

It does not know transports, or when a call is repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from sluice.client.lookups import Lookups
from sluice.client.sequences import fitted_columns, fitted_rows
from sluice.client.signatures import Signatures
from sluice.client.transport import Transport
from sluice.client.values import BARE, Array, Column, ModelSpec, PredictCall
from sluice.policy.contract import Signature
from sluice.policy.contract_document import ContractError, parse_contract
from sluice.policy.errors import BackendError, BadRequest, MissingInput, SignatureNotFound
from sluice.wire.rest import check_names
from sluice.wire.signatures import named_as

_CONTRACT = "contract"  # the signature that answers with a model's contract


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks for: arrays of any dtype by input name, and no `outputs` for all of them."""

    spec: ModelSpec
    signature: str
    inputs: Mapping[str, Column]
    outputs: Sequence[str]


class Predictions:
    """The predict calls of one client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[ModelSpec, Signatures] = {}
        self._asked = Lookups(self._described)

    async def run(self, asked: Asked, timeout_s: float) -> dict[str, Array]:
        """One attempt: the outputs, by name.

        A refusal may come of signatures that were true of an earlier version; then it is tried once more with the
        present ones.

        Raises:
            SluiceError: what the gateway answered, or what is wrong with the inputs.
        """
        known = self._known.get(asked.spec)
        if known is not None:
            try:
                return await self._send(asked, known, timeout_s)
            except (BadRequest, BackendError):
                if await self._signatures(asked.spec, timeout_s, but=known) == known:
                    raise
        return await self._send(asked, await self._signatures(asked.spec, timeout_s), timeout_s)

    async def _send(self, asked: Asked, signatures: Signatures, timeout_s: float) -> dict[str, Array]:
        outputs = await self._transport.predict(_call(asked, signatures), timeout_s)
        return {name: outputs[name] for name in asked.outputs} if asked.outputs else outputs

    async def _signatures(self, spec: ModelSpec, timeout_s: float, but: Signatures | None = None) -> Signatures:
        """The signatures that are known; asked if there are none, or only `but`."""
        if self._known.get(spec) in (None, but):
            self._known[spec] = await self._asked.of(spec, timeout_s)
        return self._known[spec]

    async def _described(self, spec: ModelSpec, timeout_s: float) -> Signatures:
        """The signatures by TensorFlow's metadata, which does not know sequences nor the names of axes."""
        plain = await self._transport.signatures(spec, timeout_s)
        tells = plain.get(_CONTRACT)
        if tells is None or tells.inputs.keys() != {"probe"}:
            return plain
        probe = PredictCall(spec, tells, {"probe": np.zeros(1, np.int32)}, ())
        return _told(plain, await self._transport.predict(probe, timeout_s))


def _told(plain: Signatures, answer: Mapping[str, Array]) -> Signatures:
    """With what a contract says of axes and sequences, as clients call these; not if it is newer than this client."""
    try:
        contract = parse_contract(orjson.loads(next(iter(answer.values()))[0]))
    except (ContractError, ValueError):
        return plain
    sequences = {name: each for name, each in contract.signatures.items() if each.kind == "sequences"}
    return named_as(contract, plain) | {name: replace(each, name=name) for name, each in sequences.items()}


def _call(asked: Asked, signatures: Signatures) -> PredictCall:
    signature = _signature(asked, signatures)
    inputs = _named(asked.inputs, signature)
    check_names([name for name in inputs if name not in signature.measures], signature.inputs)
    if unknown := [name for name in asked.outputs if name not in signature.outputs]:
        raise BadRequest(
            f"There is no output {', '.join(map(repr, unknown))}; "
            f"the signature has {', '.join(map(repr, signature.outputs))}."
        )
    if signature.kind == "sequences":
        return PredictCall(asked.spec, signature, fitted_columns(signature, inputs), asked.outputs)
    arrays = {name: fitted_rows(inputs[name], tensor) for name, tensor in signature.inputs.items()}
    return PredictCall(asked.spec, signature, arrays, asked.outputs)


def _signature(asked: Asked, signatures: Signatures) -> Signature:
    if asked.signature not in signatures:
        raise SignatureNotFound(
            f"Model {asked.spec.model!r} has no signature {asked.signature!r}; "
            f"it has {', '.join(map(repr, sorted(signatures)))}."
        )
    return signatures[asked.signature]


def _named(inputs: Mapping[str, Column], signature: Signature) -> Mapping[str, Column]:
    """A bare value belongs to the only input."""
    if inputs.keys() != {BARE} or BARE in signature.inputs:
        return inputs
    if len(signature.inputs) != 1:
        raise MissingInput(
            f"Signature {signature.name!r} has {len(signature.inputs)} inputs, "
            f"{', '.join(map(repr, signature.inputs))}: name them."
        )
    return dict.fromkeys(signature.inputs, inputs[BARE])
