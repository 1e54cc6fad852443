"""Knows which models and versions the back end serves, and how each wants to be called. It finds out by asking."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
import structlog
from numpy.typing import NDArray

from sluice.gateway.upstream.client import Backend, NotServed, VersionStatus
from sluice.gateway.upstream.served import Model, ServedVersion
from sluice.model_folder import Found
from sluice.policy.contract import Contract
from sluice.policy.contract_document import ContractError, parse_contract
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    InputRejected,
    ModelNotFound,
    SluiceError,
    VersionNotFound,
)
from sluice.wire.signatures import INITIALIZER, can_be_called, named_as, plain_signature, tells_contract

Array = NDArray[Any]
log = structlog.get_logger()

_ASK_TIMEOUT_S = 5.0
_QUICK_POLL_S = 0.1
_NOTICED_S = 0.05  # until when a connection that broke under a call is known to have broken
_NAME_LIMIT = 256
_LABELS = 64  # of one model that are remembered
_AVAILABLE, _END = "AVAILABLE", "END"
# What keeps one version from being called. One that has just been unloaded is not found.
_UNUSABLE = (
    ContractError, NotServed, BackendError, InputRejected, BackendUnavailable, DeadlineExceeded, VersionNotFound
)  # fmt: skip
_NOT_YET = "the model server has not answered yet"
# The rest of a model's signatures are TensorFlow's own affair, or ours.


class Catalog:
    """All models of one back end.

    `look` says, in a thread, what lies in the folder of those to look at from the start; None: there is no folder, and
    those that clients ask for are looked at. While one of the `required` cannot be called, requests should go
    elsewhere. `welcome` hears of each version from which on it can be called, `retire` of each that has gone.
    `expected` is why the back end cannot be reached yet, if that is no fault.
    """

    def __init__(
        self,
        backend: Backend,
        look: Callable[[], Found] | None,
        required: Sequence[str],
        welcome: Callable[[ServedVersion], None],
        retire: Callable[[str, int], None],
        expected: str = "",
    ) -> None:
        self.models: dict[str, Model] = {}
        self.address = backend.address
        self.unreachable: str = expected or _NOT_YET
        self.reached = False  # once at least
        self._expected = expected
        self._backend = backend
        self._look = look
        self._folder: Found | None = None
        self._required = required
        self._faults: dict[str, str] = {}  # what the back end says in place of a model's state
        self._welcome = welcome
        self._retire = retire
        self._asking = asyncio.Lock()  # one question about the models at a time, however many clients wait for it

    async def find(self, name: str, version: int | None = None) -> ServedVersion:
        """A version that can be called; by default the newest.

        Raises:
            ModelNotFound, VersionNotFound, BackendUnavailable.
        """
        if name not in self.models:
            await self._discover(name)
        model = self.models[name]
        found = model.newest if version is None else model.served.get(version)
        if found is not None:
            return found
        if version is not None and not self.unreachable and model.served:
            raise VersionNotFound(
                f"Model {name!r} has no version {version} that is served; it has {', '.join(map(str, model.served))}."
            )
        raise self._unavailable(name)

    def _unavailable(self, name: str) -> BackendUnavailable:
        reason = self.unreachable or self.models.get(name, Model(name)).trouble()
        return BackendUnavailable(f"Model {name!r} cannot be called now: {reason}.")

    def at_hand(self, name: str, version: int | None = None, label: str | None = None) -> ServedVersion | None:
        """As `find`, without asking the model server: None if that is needed to know."""
        model = self.models.get(name)
        if model is None:
            return None
        if label is not None:
            version = model.labels.get(label)
            return model.served.get(version) if version is not None else None
        return model.newest if version is None else model.served.get(version)

    async def labelled(self, name: str, label: str) -> int:
        """The version of a model that has a label now.

        Raises:
            ModelNotFound, VersionNotFound, BackendUnavailable.
        """
        await self.find(name)
        version = await self._backend.labelled(name, label, _ASK_TIMEOUT_S)
        labels = self.models[name].labels
        if len(labels) < _LABELS or label in labels:
            labels[label] = version
        return version

    def listed(self) -> list[Model]:
        """All models that are known, by name."""
        return [model for _, model in sorted(self.models.items())]

    def get(self, name: str, version: int) -> ServedVersion:
        """A version that is known, such as that of an open session.

        Raises:
            BackendUnavailable: it cannot be called now.
        """
        model = self.models.get(name)
        found = model and model.served.get(version)
        if not found:
            raise self._unavailable(name)
        return found

    async def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        timeout_s: float,
    ) -> dict[str, Array]:
        """As `Backend.predict`; if the back end does not serve a version any more, that is known here when this raises.

        Raises:
            VersionNotFound: so it is. BackendError: it does serve it, and the model itself did not find something.
        """
        try:
            answer = await self._backend.predict(model, version, signature, inputs, outputs, timeout_s)
        except BackendUnavailable:
            self._doubt()
            raise
        except VersionNotFound as error:
            async with self._asking:
                if self._serves(model, version):
                    await self._ask(model)
            if self._serves(model, version):
                failed = BackendError(error.message)
                failed.origin = error.origin
                raise failed from None
            raise
        if self.unreachable:
            self.unreachable = ""
        return answer

    async def forward(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Pass a call on to the back end as it is; see `Backend.forward`."""
        try:
            answer = await self._backend.forward(method, request, timeout_s)
        except BackendUnavailable:
            self._doubt()
            raise
        self.unreachable = ""
        return answer

    def _doubt(self) -> None:
        """A call has failed: for lack of a connection, which is then known here, or because the back end said so."""
        self._check_connection()
        asyncio.get_running_loop().call_later(_NOTICED_S, self._check_connection)

    def _check_connection(self) -> None:
        if not self._backend.connected:
            self.unreachable = self.unreachable or self._backend.lost

    def _serves(self, name: str, version: int) -> bool:
        return name in self.models and version in self.models[name].served

    async def watch(self, poll_s: float) -> None:
        """Keep asking the back end, every `poll_s` seconds and quicker while it is gone, until cancelled."""
        before, seen, troubles, unserved = None, dict[str, str](), dict[str, str](), dict[str, str]()
        while True:
            await self.refresh()
            if (trouble := self.trouble()) != before:
                self._tell(trouble)
            before = trouble
            unserved = _told("not served", self.unserved, unserved)
            found = {} if self.unreachable else self.troubles()
            # A model that is new is not known at the first look, and then loads.
            lasting = {name: why for name, why in found.items() if why == seen.get(name) and not self._loads(name)}
            seen, troubles = found, _told("model in trouble", lasting, troubles)
            await asyncio.sleep(poll_s if self.ready else min(poll_s, _QUICK_POLL_S))

    def _tell(self, trouble: str) -> None:
        if not trouble:
            log.info("ready", models=sorted(self.models))
        elif trouble == self._expected:
            log.info("waiting", reason=trouble)
        else:
            log.warning("not ready", reason=trouble)

    async def refresh(self) -> None:
        """Ask the back end about every known and wanted model once."""
        try:
            self._folder = await asyncio.to_thread(self._look) if self._look else None
            await self._backend.reach(_ASK_TIMEOUT_S)
            for name in self._names():
                await self._refresh(name)
            self.unreachable, self.reached, self._expected = "", True, ""
        except DeadlineExceeded as error:
            self.unreachable = error.message.rstrip(".")
            await self._backend.reconnect()
        except SluiceError as error:
            self.unreachable = self._expected or error.message.rstrip(".")
        except Exception:  # whoever watches must go on watching
            log.exception("the model server's answer was not understood")
            self.unreachable = "the model server's answer was not understood; it has been logged"

    def lose(self, reason: str) -> None:
        """The back end is known to have gone."""
        self.unreachable, self._expected = reason, ""

    @property
    def gone(self) -> bool:
        """Whether the back end could be asked before, and cannot now."""
        return self.unreachable not in ("", _NOT_YET)

    @property
    def unserved(self) -> Mapping[str, str]:
        """What lies in the folder and is not served, by the name that it would have: why, and what to do."""
        return self._folder.unserved if self._folder else {}

    @property
    def ready(self) -> bool:
        return not self.trouble()

    def trouble(self) -> str:
        """Why requests should go elsewhere; empty if they should come."""
        if self.unreachable:
            return self.unreachable
        if self._look and not any(model.served for model in self.models.values()):
            if self._folder is None:
                return _NOT_YET
            if not self._folder.models:
                return self._folder.nothing
            if all(name not in self.models or self._loads(name) for name in self._folder.models):
                return "no model can be called yet"
        lacking = [name for name in self._required if name not in self.models or not self.models[name].served]
        return "; ".join(f"model {name!r}: {self._trouble_of(name)}" for name in lacking)

    def troubles(self) -> dict[str, str]:
        """What is wrong with each model that should be there or is known; "": nothing is."""
        return {name: self._trouble_of(name) for name in self._names()}

    def notes(self) -> list[str]:
        """What an operator should know of the back end though all models are served."""
        return [
            f"The model server batches model {name!r}, too. Batches of different shape that meet there run again, one "
            "at a time, and large ones in parts: start it without --enable_batching."
            for name in sorted(self._backend.batching)
        ]

    def _trouble_of(self, name: str) -> str:
        if self.unreachable and name not in self.models:
            return self.unreachable
        return self._faults.get(name) or self.models.get(name, Model(name)).trouble()

    def _loads(self, name: str) -> bool:
        return name in self.models and self.models[name].loads

    def _names(self) -> list[str]:
        in_folder = self._folder.models if self._folder else ()
        return sorted({*self.models, *in_folder, *self._required})

    async def _discover(self, name: str) -> None:
        if len(name) > _NAME_LIMIT:  # nobody has such a name, and the model server's answer would repeat it
            raise self._unknown(name)
        if self.gone:
            raise BackendUnavailable(f"Model {name!r} cannot be called now: {self.unreachable}.")
        try:
            async with self._asking:
                if name not in self.models:
                    await self._ask(name)
        except SluiceError as error:
            raise BackendUnavailable(f"Model {name!r} cannot be called now: {error.message}") from None
        if name not in self.models:
            raise self._unknown(name)

    def _unknown(self, name: str) -> ModelNotFound:
        known, reason = ", ".join(sorted(self.models)) or "none", self.unserved.get(name)
        why = f" It is not served: {reason}." if reason else ""
        return ModelNotFound(f"There is no model {name!r:.200}; the models here are: {known}.{why}")

    async def _refresh(self, name: str) -> None:
        async with self._asking:
            try:
                await self._ask(name)
            except (BackendError, InputRejected) as error:  # it answers, though not about this model
                self._faults[name] = error.message.rstrip(".")
            else:
                self._faults.pop(name, None)

    async def _ask(self, name: str) -> None:
        try:
            statuses = await self._backend.versions(name, _ASK_TIMEOUT_S)
        except NotServed:
            statuses = []
        if all(each.state == _END and not each.error for each in statuses):  # what is known is that there was one
            statuses = []
        model = self.models.get(name, Model(name))
        model.statuses = statuses
        available = [each.version for each in statuses if each.state == _AVAILABLE]
        for version in available:
            if version not in model.served and not isinstance(model.broken.get(version), ContractError):
                await self._load(model, version)
        for version in [*model.served]:
            if version not in available and _is_gone(version, statuses):
                del model.served[version]
                self._retire(name, version)
                log.info("version gone", model=name, version=version)
        for label in [*model.labels]:
            await self._look_up(model, label)
        model.broken = {version: reason for version, reason in model.broken.items() if version in available}
        if statuses:
            self.models[name] = model
        else:
            self.models.pop(name, None)

    async def _look_up(self, model: Model, label: str) -> None:
        """Labels move: what is known of them is asked for again with everything else."""
        try:
            model.labels[label] = await self._backend.labelled(model.name, label, _ASK_TIMEOUT_S)
        except VersionNotFound:
            del model.labels[label]

    async def _load(self, model: Model, version: int) -> None:
        try:
            described = await self._backend.signatures(model.name, version, _ASK_TIMEOUT_S)
            contract = await self._contract(model.name, version) if tells_contract(described.get("contract")) else None
        except _UNUSABLE as error:
            if isinstance(error, BackendUnavailable) and not self._backend.connected:
                raise
            if version not in model.broken:
                log.warning("version cannot be called", model=model.name, version=version, reason=str(error))
            model.broken[version] = error
            return
        told = contract.signatures if contract else {}
        hidden = {INITIALIZER, *(["contract"] if contract else ())}
        hidden |= {each.name for each in told.values()} - told.keys()  # who says another name calls these
        callable_ = [name for name, each in described.items() if name not in hidden and can_be_called(each)]
        plain = {name: plain_signature(name, each) for name, each in described.items()}
        plain = named_as(contract, plain) if contract else plain
        signatures = {**told, **{name: plain[name] for name in sorted(callable_) if name not in told}}
        rows = {name: {key: each.row() for key, each in sig.inputs.items()} for name, sig in signatures.items()}
        model.broken.pop(version, None)
        model.served[version] = served = ServedVersion(model.name, version, contract, signatures, rows, plain)
        log.info("version served", model=model.name, version=version, signatures=sorted(signatures))
        self._welcome(served)

    async def _contract(self, name: str, version: int) -> Contract:
        text = await self._backend.contract(name, version, _ASK_TIMEOUT_S)
        try:
            return parse_contract(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise ContractError(f"contract: expected JSON; {error}") from None


def _told(event: str, reasons: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Warn of each reason that has not been told `before`; what has been, next time."""
    for name, reason in reasons.items():
        if reason and reason != before.get(name):
            log.warning(event, model=name, reason=reason)
    return dict(reasons)


def _is_gone(version: int, statuses: Iterable[VersionStatus]) -> bool:
    """Whether a version that was available will not come back: not listed, or on its way out."""
    return all(each.state in ("UNLOADING", _END) for each in statuses if each.version == version)
