"""The example models: build them, or write out their data. Importing this is cheap; building loads TensorFlow."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXAMPLES = ("temperature", "clips", "dates", "language", "digits", "glyphs")


class UnknownExample(ValueError):
    """There is no example model of that name; the sentence lists those there are."""


def build(names: Iterable[str], out: Path) -> list[Path]:
    """Train and export example models, all of them if no name is given.

    Returns:
        The version folders, OUT/NAME/1.

    Raises:
        UnknownExample: a name is none of `EXAMPLES`; nothing was built.
    """
    modules = [_module(name, "model") for name in names or EXAMPLES]
    return [module.build(Path(out)) for module in modules]


def data(name: str, out: Path) -> Path:
    """Write an example model's data as OUT/NAME.csv, beside it what does not fit into a table, and return that file.

    Raises:
        UnknownExample: the name is none of `EXAMPLES`.
    """
    return _module(name, "data").write_csv(Path(out))


def _module(name: str, part: str) -> ModuleType:
    if name not in EXAMPLES:
        raise UnknownExample(f"expected one of the example models ({', '.join(EXAMPLES)}), got '{name}'")
    return import_module(f"models.{name}.{part}")
