"""The Python programs on the pages: names of their files, where they call, whether they print what is shown."""

import re

from tests.docs.pages import Block
from tests.end_to_end.serving import Gateway

WRITTEN_AS = "127.0.0.1:8080"
GRPC_WRITTEN_AS = "127.0.0.1:8081"
_FLOAT = r"-?\d+\.\d+"


def file_name(block: Block) -> str:
    """A Python block says in the sentence before it what its file is called."""
    named = re.findall(r"`(\w+\.py)`", block.lead)
    assert len(named) == 1, f"which file is this? {block.lead}"
    return str(named[0])


def here(text: str, gateway: Gateway) -> str:
    """A text with the addresses of this gateway."""
    found = re.search(r"\bgrpc=(\S+)", gateway.log.read_text(encoding="utf-8"))
    assert found is not None, "the gateway does not say where it listens for gRPC"
    return text.replace(WRITTEN_AS, gateway.url.removeprefix("http://")).replace(GRPC_WRITTEN_AS, found[1])


def prints(shown: str, printed: str) -> bool:
    """Whether a program printed what is shown, except for the digits of floats."""
    parts = map(re.escape, re.split(_FLOAT, shown.strip()))
    return re.fullmatch(_FLOAT.join(parts), printed.strip()) is not None
