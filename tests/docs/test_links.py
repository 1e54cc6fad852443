"""Links between pages lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages, prose, text_of

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_the_links_of_a_page_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {Path("README.md")}
    while new:
        page = new.pop()
        reached.add(page)
        links = {(ROOT / page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(text_of(page))}
        new |= {
            link.relative_to(ROOT) for link in links if link.suffix == ".md" and link.is_relative_to(ROOT)
        } - reached
    assert set(pages()) - reached == set()


@pytest.mark.parametrize("page", pages(), ids=str)
def test_a_page_promises_nothing_and_begins_with_its_title(page: Path) -> None:
    text = text_of(page)
    assert text.startswith("# ")
    assert not re.search(r"\b(TODO|FIXME|coming soon)\b", text)
