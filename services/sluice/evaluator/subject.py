"""Finds the model version that is evaluated, and how it wants to be asked."""

from contextlib import suppress
from dataclasses import replace

from sluice.client import AsyncClient
from sluice.client.values import ServedVersion
from sluice.evaluator.spec import Spec
from sluice.evaluator.tasks.task import Subject
from sluice.policy.contract_document import ContractError
from sluice.policy.errors import BackendUnavailable, BadRequest, ModelNotFound, SluiceError, VersionNotFound

_AVAILABLE = "AVAILABLE"


async def find(client: AsyncClient, spec: Spec) -> Subject:
    """The version that the spec names, or the newest one that can be called.

    Raises:
        NotFound: there is no such model or version.
        Unavailable: it cannot be called now.
    """
    with suppress(SluiceError, ContractError):  # without a folder of models, it is listed when it is asked for
        await client.contract(spec.model)
    listed = {each.name: each.versions for each in await client.models()}
    if spec.model not in listed:
        raise ModelNotFound(f"There is no model {spec.model!r}; the gateway serves {', '.join(listed) or 'none'}.")
    return await describe(client, spec.model, _chosen(spec, listed[spec.model]))


async def describe(client: AsyncClient, model: str, version: int) -> Subject:
    """What a version says of itself; the contract's signatures, where it has one, go before TensorFlow's own."""
    try:
        contract = await client.contract(model, version)
    except ContractError as error:
        raise BadRequest(f"The contract of model {model!r}, version {version}, cannot be read: {error}") from None
    signatures = dict(await client.signatures(model, version=version))
    if contract is not None:
        signatures |= {name: replace(each, name=name) for name, each in contract.signatures.items()}
    return Subject(model, version, contract, signatures)


def _chosen(spec: Spec, versions: list[ServedVersion]) -> int:
    def wanted(each: ServedVersion) -> bool:
        if spec.label is not None:
            return spec.label in each.labels
        return spec.version in (None, each.version)

    found = [each for each in versions if wanted(each)]
    if not found:
        what = f"label {spec.label!r}" if spec.label is not None else f"version {spec.version}"
        there = ", ".join(str(each.version) for each in versions)
        raise VersionNotFound(f"Model {spec.model!r} has no {what}; it has version {there or 'none'}.")
    available = [each.version for each in found if each.state == _AVAILABLE]
    if not available:
        raise BackendUnavailable(f"Model {spec.model!r} has no version that can be called now.")
    return max(available)
