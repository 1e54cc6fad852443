"""The facts about a model that is explained: its contract, its recurrent layers, and what only its source knows."""

from dataclasses import dataclass

from sluice.cli.requests import entry
from sluice.policy.contract import TIME, Contract, Signature, State, Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """A recurrent layer: [batch, inputs] @ [inputs, width] + [batch, units] @ [units, width] at each time step.

    `units` is None for a layer that does something else than these two products. `inputs` and `width` are None where
    nothing says how many numbers of a row reach it, and how many gates it has.
    """

    name: str
    kind: str
    units: int | None = None
    inputs: int | None = None
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is explained.

    Attributes:
        name: the model's name in a gateway.
        source: where the facts come from, for people.
        contract: its signatures; in `rows`, a `time` axis has a size where the model fixes the number of time steps.
        layers: its recurrent layers, in order; empty if it has none or nothing is known about them.
        framewise: names of layers that run on every time step alone (TimeDistributed).
        batch: the batch size that the Keras model was built for, None for any.
        obstacle: why it cannot be exported as it is; empty if it can be, or is already.
        limits: how it is not served, and why; empty if that is not known, or there is nothing to say.
        export: the command that exports it; empty if it is exported already.
        note: a sentence about what the source does not say.
        url: the gateway of the example requests.
    """

    name: str
    source: str
    contract: Contract
    layers: tuple[Layer, ...] = ()
    framewise: tuple[str, ...] = ()
    batch: int | None = None
    obstacle: str = ""
    limits: str = ""
    export: str = ""
    note: str = ""
    url: str = ""

    @property
    def entry(self) -> Signature:
        """The signature that takes whole rows, or else the one that comes nearest."""
        return entry(self.contract)

    @property
    def tensor(self) -> Tensor:
        """The input that the numbers are explained with: the first one with a time axis, if there is any."""
        return min(self.entry.inputs.values(), key=lambda each: not each.has_time)

    @property
    def time(self) -> int | None:
        """How many time steps every row has, None if that is open or there is no time axis."""
        return self.tensor.axes[1].size if self.tensor.has_time else None

    @property
    def bounds(self) -> tuple[int, ...]:
        """The longest rows of the groups that rows are batched in by their length; empty where nothing says it."""
        return self.entry.bounds.get(TIME, ())

    @property
    def states(self) -> tuple[State, ...]:
        signature = self.contract.step or self.contract.scan
        return signature.states if signature else ()
