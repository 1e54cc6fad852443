"""The Python programs on the pages: the names of their files, and where they call."""

import re

from tests.docs.pages import Block
from tests.end_to_end.serving import Gateway

WRITTEN_AS = "127.0.0.1:8080"
GRPC_WRITTEN_AS = "127.0.0.1:8081"


def file_name(block: Block) -> str:
    """A Python block says in the sentence before it what its file is called."""
    named = re.findall(r"`(\w+\.py)`", block.lead)
    assert len(named) == 1, f"which file is this? {block.lead}"
    return str(named[0])


def here(text: str, gateway: Gateway) -> str:
    """A text with the addresses of this gateway."""
    return text.replace(WRITTEN_AS, gateway.url.removeprefix("http://")).replace(
        GRPC_WRITTEN_AS, gateway.grpc_url.removeprefix("grpc://")
    )
