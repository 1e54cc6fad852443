"""The policy knows no clock, no socket, no task and no chance: it imports nothing that does."""

import ast
import sys
from pathlib import Path

import pytest

import sluice.policy

FILES = sorted(Path(sluice.policy.__file__).parent.glob("*.py"))
BANNED = {
    "asyncio", "concurrent", "datetime", "logging", "multiprocessing", "os", "random", "secrets", "select", "signal",
    "socket", "ssl", "subprocess", "threading", "time", "uuid",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """The top-level names of what a file imports, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    return {"policy" if name.startswith("sluice.policy.") else name.partition(".")[0] for name in plain | named}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_policy_module_imports_the_standard_library_and_numpy_only(path: Path) -> None:
    assert imported(path) <= sys.stdlib_module_names | {"numpy", "ml_dtypes", "policy"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_policy_module_knows_no_clock_no_socket_no_task_and_no_chance(path: Path) -> None:
    assert not imported(path) & BANNED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_policy_module_does_not_reach_for_numpys_random_numbers_or_clock(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    reached = {f"{ast.unparse(node.value)}.{node.attr}" for node in nodes if isinstance(node, ast.Attribute)}
    assert not {name for name in reached if name.startswith(("np.random", "np.datetime64"))}
    assert not {"print", "open", "input"} & {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
