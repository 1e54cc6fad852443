"""The dtypes of a model's outputs, asked once for each model version: JSON does not tell them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sluice.client.lookups import Lookups
from sluice.client.values import Kind
from sluice.policy.contract_document import parse_contract

Fetch = Callable[[str, str, float], Awaitable[Any]]
Dtypes = Mapping[str, str]


class OutputDtypes:
    """`fetch` gives the contract's document of a model and version, within seconds."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._known: dict[tuple[str, str], Mapping[Kind, Dtypes]] = {}
        self._asked = Lookups(self._told)

    async def of(self, kind: Kind, model: str, version: str, timeout_s: float) -> Dtypes:
        """Output name → dtype name of a step or a scan."""
        key = (model, version)
        if key not in self._known:
            self._known[key] = await self._asked.of(key, timeout_s)
        return self._known[key][kind]

    async def _told(self, key: tuple[str, str], timeout_s: float) -> Mapping[Kind, Dtypes]:
        return _dtypes(await self._fetch(*key, timeout_s))


def _dtypes(document: Any) -> Mapping[Kind, Dtypes]:
    contract = parse_contract(document)
    found: dict[Kind, Dtypes] = {}
    for kind in ("step", "scan"):
        signature = getattr(contract, kind)
        found[kind] = {} if signature is None else {name: each.dtype for name, each in signature.outputs.items()}
    return found
