"""The pages of the documentation, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ELSEWHERE = {"var", "node_modules"}
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `lead` is the paragraph before it."""

    language: str
    text: str
    lead: str


@cache
def pages() -> list[Path]:
    """Every page, relative to the repository."""
    tops = (path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in _ELSEWHERE)
    found = (page for top in tops for page in ([top] if top.suffix == ".md" else top.rglob("*.md")))
    return sorted(page.relative_to(ROOT) for page in found)


def text_of(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path | str) -> Iterator[Block]:
    text = text_of(page)
    for found in _FENCED.finditer(text):
        yield Block(found[1], found[2], text[: found.start()].strip().rpartition("\n\n")[2])


def prose(page: Path | str) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", text_of(page))


def shell_lines() -> Iterator[tuple[Path, str]]:
    """Every command line in the `sh` blocks of every page; continued lines are joined."""
    for page in pages():
        for block in blocks(page):
            if block.language == "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    yield page, line.strip()
