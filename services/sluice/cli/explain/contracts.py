"""A model of which a contract, or TensorFlow's own metadata, is all that is known."""

from collections.abc import Mapping
from itertools import groupby

from sluice.cli.errors import CommandError
from sluice.cli.explain.subject import Layer, Subject
from sluice.policy.contract import Contract, Signature, State
from sluice.wire.tensors import DTYPE_NUMBERS

_GATES = 4  # of an LSTM
_STATES = "n counts the numbers that reach the layer at each time step; the contract does not say how many. {}"
_K = " k is 3 for a GRU, 1 for a SimpleRNN."
BY_STATES = "It names states, not layers: h and c are an LSTM's, h alone is a GRU's or a SimpleRNN's."


def by_contract(name: str, source: str, contract: Contract, url: str, hint: str) -> Subject:
    """`hint` says who knows the layers.

    Raises:
        CommandError: the contract has no signatures.
    """
    if not contract.signatures:
        raise CommandError(f"{name}: expected a contract with signatures; got one without any")
    layers = layers_of(contract)
    gates = _K if any(layer.units and layer.width is None for layer in layers) else ""
    note = _STATES.format(hint) + gates if any(layer.units for layer in layers) else ""
    return Subject(name, source, contract, layers=layers, note=note, url=url)


def without_contract(signatures: Mapping[str, Signature], where: object) -> Contract:
    """The signatures of a plain SavedModel that can be called: all of them take rows.

    Raises:
        CommandError: there are none.
    """
    callable_ = {name: signatures[name] for name in sorted(signatures) if _can_be_called(signatures[name])}
    if not callable_:
        raise CommandError(f"{where}: expected a model with a signature that takes tensors; got one without any")
    return Contract("", callable_, {})


def _can_be_called(signature: Signature) -> bool:
    """Whether it has inputs, all of known rank and dtype."""
    inputs = signature.inputs.values()
    return bool(inputs) and all(each.axes and each.dtype in DTYPE_NUMBERS for each in inputs)


def layers_of(contract: Contract) -> tuple[Layer, ...]:
    """The recurrent layers, as far as their states tell: `<layer>/h` and `<layer>/c` (docs/contract.md)."""
    signature = contract.step or contract.scan
    grouped = groupby(signature.states if signature else (), key=lambda state: state.name.rpartition("/")[0])
    return tuple(_layer(name, {state.name.rpartition("/")[2]: state for state in states}) for name, states in grouped)


def _layer(name: str, states: Mapping[str, State]) -> Layer:
    if not (states.keys() in ({"h"}, {"h", "c"}) and all(len(state.shape) == 1 for state in states.values())):
        return Layer(name, f"states {', '.join(states)}")
    units = states["h"].shape[0]
    if "c" in states:
        return Layer(name, "LSTM", units, None, _GATES * units)
    return Layer(name, "GRU or SimpleRNN", units)
