"""Finds the model version that a request names, and has something begun on it, or passed on to the model server.

It does not know what is begun.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sluice.gateway.core.pending import Pending, awaited, in_task
from sluice.gateway.upstream.catalog import Catalog
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.errors import DeadlineExceeded, InputRejected, ModelNotFound, SluiceError, VersionNotFound
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs

# Calls whose requests do not name one model in their first field.
_OTHERS = ("PredictionService/MultiInference", "ModelService/HandleReloadConfigRequest")
# Calls with examples, by how REST calls them.
_EXAMINES = {"PredictionService/Classify": "classify", "PredictionService/Regress": "regress"}

Begin = Callable[[ServedVersion, Pending], None]  # may raise `SluiceError`: it is refused


class ModelSpec(NamedTuple):
    """A model version as a request names it: without number and label the newest."""

    name: str
    version: int | None = None
    label: str | None = None


class Resolver:
    """Looks in the catalog first, where nearly every version is, and asks the model server about the others."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def resolve(self, spec: ModelSpec, deadline: float, begin: Begin, pending: Pending) -> None:
        """Have `begin` begin a call on a version; once more if that goes meanwhile and any would do.

        Raises:
            SluiceError: `begin` refuses it.
        """
        served = self._catalog.at_hand(*spec)
        if served is None:
            in_task(self._find_and_begin, spec, deadline, begin, pending=pending)
            return
        if spec.version is None:
            pending = self._once_more(spec, deadline, begin, pending)
        begin(served, pending)

    async def find(self, spec: ModelSpec, deadline: float) -> ServedVersion:
        """The version, in time, though the model server may have to be asked.

        Raises:
            ModelNotFound, VersionNotFound, BackendUnavailable, DeadlineExceeded.
        """
        name, version, label = spec
        try:
            async with asyncio.timeout_at(deadline):
                if label is not None:
                    version = await self._catalog.labelled(name, label)
                return await self._catalog.find(name, version)
        except TimeoutError:
            raise DeadlineExceeded(f"The model server did not say in time whether it serves model {name!r}.") from None

    async def forward(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Pass a call on to the model server as it is; see `Catalog.forward`.

        Raises:
            ModelNotFound: it found no version because it has no such model; as it says so itself.
            InputRejected: it does not take this; says which call does, where the model has none of this kind.
        """
        try:
            return await self._catalog.forward(method, request, timeout_s)
        except VersionNotFound as error:
            raise await self._what_is_missing(method, request, error) from None
        except InputRejected as error:
            if call := _EXAMINES.get(method):
                raise await self._with_other_calls(call, request, timeout_s, error) from None
            raise

    async def _with_other_calls(
        self, call: str, request: bytes, timeout_s: float, error: InputRejected
    ) -> InputRejected:
        """With what to call instead, where the model has nothing that classify or regress could call."""
        spec = tfs.GetModelStatusRequest.FromString(request).model_spec  # which reads that field of them all
        named = ModelSpec(spec.name, spec.version.value or None, spec.version_label or None)
        try:
            served = await self.find(named, asyncio.get_running_loop().time() + timeout_s)
        except SluiceError:
            return error
        lacks, (status, text) = served.lacks_examples(call), error.origin or ("", "")
        if not lacks:
            return error
        told = InputRejected(f"{lacks} The model server says: {text}")
        told.origin = status, told.message
        return told

    async def _what_is_missing(self, method: str, request: bytes, error: VersionNotFound) -> SluiceError:
        if method in _OTHERS:
            return error
        asked = tfs.GetModelStatusRequest.FromString(request)  # which reads that field of them all
        try:
            await self._catalog.find(asked.model_spec.name)
        except ModelNotFound as unknown:
            unknown.origin = error.origin
            return unknown
        except SluiceError:
            pass
        return error

    def _once_more(self, spec: ModelSpec, deadline: float, begin: Begin, pending: Pending) -> Pending:
        """A call whose outcome is that of `pending`, unless its version has gone: then it begins anew."""

        def settled(outcome: Any) -> None:
            if isinstance(outcome, VersionNotFound):
                in_task(self._find_and_begin, spec, deadline, begin, pending=pending)
            else:
                pending.settle(outcome)

        first = Pending(settled)
        pending.runs(Pending.cancel, first)
        return first

    async def _find_and_begin(self, spec: ModelSpec, deadline: float, begin: Begin) -> Any:
        served = await self.find(spec, deadline)
        return await awaited(partial(begin, served))
