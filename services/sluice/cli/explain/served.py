"""Asks a gateway about a served model for `explain`."""

from sluice.cli.ask import asking
from sluice.cli.errors import CommandError
from sluice.cli.explain.contracts import BY_STATES, by_contract, without_contract
from sluice.cli.explain.subject import Subject
from sluice.policy.contract_document import ContractError

_OTHERWISE = "The name of a file ends in .keras, and that of a version folder is DIR/NAME/VERSION"


def from_gateway(name: str, url: str) -> Subject:
    """What a gateway says about a served model; one without a contract is explained as rows."""
    with asking(url, _OTHERWISE) as client:
        try:
            contract = client.contract(name) or without_contract(client.signatures(name), f"{name} at {url}")
        except ContractError as error:
            raise CommandError(f"{name} at {url}: {error}") from None
    return by_contract(name, f"served at {url}", contract, url, BY_STATES)
