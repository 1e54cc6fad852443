"""What is known of a model: its versions as the model server reports them, and how those that run want to be called."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sluice.gateway.upstream.client import VersionStatus
from sluice.policy.contract import Contract, Recognition, Signature, Tensor
from sluice.policy.errors import SignatureNotFound, UnsupportedByModel

# What a model that offers a kind is asked by.
_CALLS = {
    "session": "step", "sequences": "predict", "recognition": "recognize", "generation": "generate", "rows": "predict",
}  # fmt: skip
_OF_ROWS = ("recognition", "generation")  # kinds whose calls take whole rows, as predict does
_EXAMINED = {"classify": {"classes", "scores"}, "regress": {"outputs"}}  # call → the outputs that its signatures have


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One model version that can be called. `contract` is None for a plain SavedModel.

    `signatures` are all that can be called, from the contract where it names them and from TensorFlow's metadata
    otherwise; `rows` are a signature's inputs without the batch axis: what one client sends. `plain` are all the
    signatures that TensorFlow's metadata shows.
    """

    model: str
    version: int
    contract: Contract | None
    signatures: Mapping[str, Signature]
    rows: Mapping[str, Mapping[str, Tensor]]
    plain: Mapping[str, Signature] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        return self.contract.kinds if self.contract else ["rows"]

    @property
    def summary(self) -> str:
        return self.contract.summary if self.contract else ""

    def signature(self, name: str) -> Signature:
        """Raises: SignatureNotFound."""
        if name not in self.signatures:
            raise SignatureNotFound(
                f"Model {self.model!r} has no signature {name!r}; it has {', '.join(sorted(self.signatures))}."
            )
        return self.signatures[name]

    def predicts(self, name: str) -> Signature | None:
        """A signature as predict takes it: a contract's of rows or sequences, TensorFlow's own otherwise."""
        told = self.contract.signatures.get(name) if self.contract else None
        return told if told is not None and told.kind in ("rows", "sequences") else self.plain.get(name)

    def predicted(self, name: str) -> Signature:
        """As `predicts`. Raises: SignatureNotFound."""
        signature = self.predicts(name)
        if signature is None:
            there_are = ", ".join(sorted(filter(self.predicts, self.signatures)))
            raise SignatureNotFound(f"Model {self.model!r} has no signature {name!r}; it has {there_are}.")
        return signature

    def entry(self, signature: Signature) -> str:
        """By which name clients call a signature of the contract."""
        return next(name for name, each in self.signatures.items() if each is signature)

    def lacks_examples(self, call: str) -> str:
        """Why none of its signatures can be called with examples, by classify or regress; empty if one can."""
        gives = _EXAMINED[call]
        for each in self.plain.values():
            if each.inputs.keys() == {"inputs"} and each.outputs and each.outputs.keys() <= gives:
                return ""
        calls = dict.fromkeys([*(_CALLS[kind] for kind in self.kinds if kind in _OF_ROWS), "predict"])
        return (
            f"Model {self.model!r} has no signature for :{call}, which takes serialized examples as 'inputs' and gives "
            f"{' or '.join(map(repr, sorted(gives)))}. Call {' or '.join(f':{name}' for name in calls)}."
        )

    def recognition(self) -> Recognition:
        """How it recognizes.

        Raises:
            UnsupportedByModel: its contract says nothing of that.
        """
        found = self.contract.recognition if self.contract else None
        if found is None:
            raise UnsupportedByModel(
                f"Model {self.model!r} version {self.version} does not recognize: its contract says nothing of it. It "
                f"offers {', '.join(self.kinds)}. Export it with `sluice export --classes`."
            )
        return found

    def stepping(self, kind: str) -> Signature:
        """The `step` or `scan` signature.

        Raises:
            UnsupportedByModel: the model has none.
        """
        signature = getattr(self.contract, kind) if self.contract else None
        if signature is None:
            lacks = (
                f"Model {self.model!r} version {self.version} has no {kind} signature, so no session of it can {kind}."
            )
            if self.contract is None:
                raise UnsupportedByModel(f"{lacks} It has no contract; `sluice export` writes one from Keras.")
            calls = dict.fromkeys(_CALLS[kind] for kind in self.kinds)
            raise UnsupportedByModel(f"{lacks} It offers {', '.join(self.kinds)}: call {', '.join(calls)}.")
        return signature  # type: ignore[no-any-return]


@dataclass(slots=True)
class Model:
    """What is known of one model: its versions as the back end reports them, and those that can be called."""

    name: str
    statuses: list[VersionStatus] = field(default_factory=list)
    served: dict[int, ServedVersion] = field(default_factory=dict)
    broken: dict[int, Exception] = field(default_factory=dict)  # available, but this is why it cannot be called
    labels: dict[str, int] = field(default_factory=dict)  # those that clients have asked for

    @property
    def newest(self) -> ServedVersion | None:
        return self.served[max(self.served)] if self.served else None

    @property
    def loads(self) -> bool:
        """Whether a version is on its way to being available."""
        return any(each.state in ("START", "LOADING") for each in self.statuses)

    def labels_of(self, version: int) -> list[str]:
        """The labels of a version, of those that clients have asked for."""
        return sorted(label for label, labelled in self.labels.items() if labelled == version)

    def trouble(self) -> str:
        """Why a version cannot be called that should be; empty if all can."""
        newest = max(self.served, default=0)
        failed = [each for each in self.statuses if not self.served or (each.error and each.version >= newest)]
        reports = [f"version {each.version} is {each.state}" + f": {each.error}" * bool(each.error) for each in failed]
        reports += [f"version {version}: {reason}" for version, reason in self.broken.items()]
        return "; ".join(reports) or ("" if self.served else "the model server does not know it")
