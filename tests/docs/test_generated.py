"""Generated tables, the diagram and the picture are what the code says now."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from sluice.policy.session import Event, Phase
from tests.docs.pages import ROOT, text_of

LIMIT_BYTES = 40 * 1024


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date(generate: ModuleType) -> None:
    assert generate.stale() == []


def test_what_is_out_of_date_is_told(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.PARTS["sessions.md"], "life cycle", lambda: "another life")
    with pytest.raises(SystemExit, match=r"sessions\.md"):
        generate.main(check=True)


def test_a_page_without_marks_is_refused(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="once each"):
        generate.replaced("a page", "part", "text")


def test_a_module_that_does_not_say_what_it_is_for_is_refused(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="docstring"):
        generate.opening(tmp_path / "silent.py")


def test_the_life_cycle_page_explains_every_event_and_draws_every_phase() -> None:
    text = text_of("docs/sessions.md")
    assert all(f"| `{event}` |" in text for event in Event)
    assert all(f" --> {phase}: " in text for phase in Phase)


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < LIMIT_BYTES for path in (ROOT / "docs" / "pictures").iterdir())
