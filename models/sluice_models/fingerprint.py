"""Whether a model that was built is what its sources would build again: a hash of these, kept beside the model.

Hashed are the module that builds it and all of Sluice that it imports, without docstrings and comments, and the
versions of the libraries that these import: their code, and the data that come with them.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from sys import stdlib_module_names

_OWN = "sluice-serving"
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_fresh(folder: Path, fingerprint: str) -> bool:
    """Whether the version folder was built from sources of this fingerprint."""
    return was_built(folder) and _file(folder).read_text(encoding="ascii") == fingerprint


def was_built(folder: Path) -> bool:
    """Whether the version folder says what it was built from."""
    return _file(folder).is_file()


def keep(folder: Path, fingerprint: str) -> None:
    """Say in a version folder what it was built from."""
    _file(folder).parent.mkdir(exist_ok=True)
    _file(folder).write_text(fingerprint, encoding="ascii")


@cache
def fingerprint(module: str) -> str:
    """The hash of what a module would build, as hexadecimal digits; the module is not imported."""
    found: dict[str, str] = {}
    libraries: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if top in stdlib_module_names:
            continue
        if others := [each for each in _distributions().get(top, []) if each != _OWN]:
            libraries.update(others)
        elif name not in found and (parsed := _parsed(name)):
            found[name], imported = parsed
            waiting += imported
    parts = [*sorted(found.items()), *((library, version(library)) for library in sorted(libraries))]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _file(folder: Path) -> Path:
    return folder / "assets.extra" / "sources.sha256"


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: [*found] for name, found in packages_distributions().items()}


@cache
def _parsed(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The code of a module without its docstrings, and what it imports; none where there is no such module."""
    file = _source(name)
    if file is None:
        return None
    tree = ast.parse(file.read_bytes())
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree), tuple(_imported(tree, package))


def _source(name: str) -> Path | None:
    """The file of a module or package; none where the name is something in a module."""
    top, *rest = name.split(".")
    spec = find_spec(top)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *rest)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """The names that a module imports, wherever it does, and the packages that are imported with them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{origin}.{each.name}" for each in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
