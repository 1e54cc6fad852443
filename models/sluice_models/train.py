"""The example models: build them, or write out their data. Importing this is cheap; building loads TensorFlow."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = ("temperature", "clips", "dates", "language", "digits", "glyphs")
# Examples of several networks: the name builds all of them, NAME_other and so on one.
NETWORKS = {"digits": ("other", "codes", "detector"), "glyphs": ("other", "codes", "detector")}


class UnknownExample(ValueError):
    """There is no example model of that name; the sentence lists those there are."""


def build(names: Iterable[str], out: Path) -> list[Path]:
    """Train and export example models, all of them if no name is given.

    Returns:
        The version folders, OUT/NAME/1.

    Raises:
        UnknownExample: a name is none of `EXAMPLES`, and no network of one; nothing was built.
    """
    builders = [_builder(name) for name in names or EXAMPLES]
    return [build(Path(out), *networks) for build, networks in builders]


def data(name: str, out: Path) -> Path:
    """Write an example model's data as OUT/NAME.csv, beside it what does not fit into a table, and return that file.

    Raises:
        UnknownExample: the name is none of `EXAMPLES`.
    """
    return _module(name, "data").write_csv(Path(out))


def _builder(name: str) -> tuple[Any, tuple[str, ...]]:
    """What builds it, and which network alone."""
    example, _, network = name.partition("_")
    if network in NETWORKS.get(example, ()):
        return _module(example, "model").build, (network,)
    return _module(name, "model").build, ()


def _module(name: str, part: str) -> ModuleType:
    if name not in EXAMPLES:
        raise UnknownExample(f"expected one of the example models ({', '.join(EXAMPLES)}), got '{name}'")
    return import_module(f"sluice_models.{name}.{part}")
