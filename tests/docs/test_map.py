"""The map of the code names files and functions that exist, and says true things about where they are called."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages, prose, text_of

SERVICES = ROOT / "services" / "sluice"
REFERENCES = sorted(set(re.findall(r"`([\w./-]+\.py):([\w.]+)`", text_of("ARCHITECTURE.md"))))


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=lambda value: value)
def test_a_reference_of_the_map_exists(path: str, name: str) -> None:
    assert name in set(names(ROOT / path))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_files_that_a_page_names_from_the_root_exist(page: Path) -> None:
    tops = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = re.findall(rf"`((?:{tops})/[\w./-]+\.\w+)(?::[\w.]+)?`", prose(page))
    assert not [path for path in named if not path.startswith("var/") and not (ROOT / path).exists()]


def test_every_module_is_in_the_list_of_modules() -> None:
    rooms = dict(re.findall(r"^## ([\w/]+)(.*?)(?=^## |\Z)", text_of("docs/modules.md"), re.MULTILINE | re.DOTALL))
    modules = (path.relative_to(ROOT) for path in SERVICES.rglob("*.py") if path.name != "__init__.py")
    own = (path for path in modules if "messages" not in path.parts)
    assert [str(path) for path in own if f"| `{path.name}` |" not in rooms.get(str(path.parent), "")] == []


def test_states_move_in_one_place() -> None:
    """After an answer in `Slab.move`; otherwise only a session that begins, or rests, is given a state."""
    assert callers("slab.move") == {"services/sluice/policy/scheduler.py:Scheduler._finish_steps"}
    assert callers("slab.occupy") == {"services/sluice/policy/sessions.py:SessionTable.open"}
    assert callers("slab.write") == {"services/sluice/policy/sessions.py:SessionTable.replace"}
    assert callers("_table.replace") == {"services/sluice/gateway/core/sessions.py:Sessions.restore"}
    assert where(lambda function: any(fills(node, "states") for node in ast.walk(function))) == {
        "services/sluice/policy/slab.py:Slab.move",
        "services/sluice/policy/slab.py:Slab.write",
    }


def test_clients_are_answered_in_one_place() -> None:
    """A ticket is settled in `_close` and told in `_deliver`; a task that waits for it is woken in `complete`."""
    assert where(lambda function: any(sets(node, "outcome") for node in ast.walk(function))) == {
        "services/sluice/policy/batch.py:Ticket.__init__",
        "services/sluice/policy/scheduler.py:Scheduler._close",
        "services/sluice/gateway/core/engine.py:Engine._deliver",
    }
    closing = {name for name in callers("self._close") if name.startswith("services/sluice/policy/")}
    assert closing == {f"services/sluice/policy/scheduler.py:Scheduler.{name}" for name in ("_settle", "_start", "end")}
    assert where(lambda function: any(tells(node) for node in ast.walk(function))) == {
        "services/sluice/gateway/core/pending.py:complete"
    }


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
    """Where the gateway and the rules call `method`, which may be written with what it is called on: `slab.move`."""
    return where(lambda function: any(calls(node, method) for node in ast.walk(function)))


def where(holds: Callable[[ast.AST], bool]) -> set[str]:
    """The functions of the gateway and of the rules for which something holds."""
    return {
        f"{path.relative_to(ROOT)}:{name}"
        for folder in ("policy", "gateway")
        for path in (SERVICES / folder).rglob("*.py")
        for name, node in definitions(tree(path).body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and holds(node)
    }


def calls(node: ast.AST, method: str) -> bool:
    return isinstance(node, ast.Call) and f".{ast.unparse(node.func)}".endswith(f".{method}")


def tells(node: ast.AST) -> bool:
    """Whether a node hands something to a task that waits, more than that it may go on."""
    return calls(node, "set_exception") or (calls(node, "set_result") and not ast.unparse(node).endswith("(None)"))


def sets(node: ast.AST, attribute: str) -> bool:
    """Whether a node gives an attribute of this name a value."""
    return isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store)


def fills(node: ast.AST, attribute: str) -> bool:
    """Whether a node writes into an array that an attribute of this name holds: `self.states[name][slot] = row`."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and any(isinstance(each, ast.Attribute) and each.attr == attribute for each in ast.walk(node.value))
    )
