"""The map of the code names files and functions that exist, and says true things about where they are called."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages, prose, text_of

SERVICES = ROOT / "services"
REFERENCES = sorted(set(re.findall(r"`([\w./-]+\.py):([\w.]+)`", text_of("ARCHITECTURE.md"))))


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=lambda value: value)
def test_a_reference_of_the_map_exists(path: str, name: str) -> None:
    assert name in set(names(ROOT / path))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_files_that_a_page_names_from_the_root_exist(page: Path) -> None:
    tops = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = re.findall(rf"`((?:{tops})/[\w./-]+\.\w+)(?::[\w.]+)?`", prose(page))
    assert not [path for path in named if not path.startswith("var/") and not (ROOT / path).exists()]


def test_every_module_is_on_the_map() -> None:
    modules = (path.relative_to(ROOT) for path in SERVICES.rglob("*.py") if path.name != "__init__.py")
    elsewhere = Path("services/model_server")  # has a page of its own
    missing = [
        str(path)
        for path in modules
        if not path.is_relative_to(elsewhere) and f"| `{path}` |" not in text_of("ARCHITECTURE.md")
    ]
    assert missing == []


def test_states_move_in_one_place() -> None:
    assert callers("move") == {"services/policy/scheduler.py:Scheduler._finish_steps"}
    assert callers("scatter") == {"services/policy/sessions.py:SessionTable.move"}


def test_clients_are_answered_in_one_place() -> None:
    assert callers("set_result") | callers("set_exception") == {"services/gateway/engine.py:complete"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names(path: Path) -> Iterator[str]:
    """What a module defines: functions, classes and their members, constants."""
    for name, _ in definitions(tree(path).body):
        yield name


def definitions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield within + node.name, node
            yield from definitions(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield within + target.id, node


def callers(method: str) -> set[str]:
    """Where the gateway and the rules call a method of this name."""
    return {
        f"{path.relative_to(ROOT)}:{name}"
        for folder in ("policy", "gateway")
        for path in (SERVICES / folder).glob("*.py")
        for name, node in definitions(tree(path).body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and calls(node, method)
    }


def calls(function: ast.AST, method: str) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
        for node in ast.walk(function)
    )
