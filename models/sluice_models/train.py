"""The example models: build them, or write out their data. Importing this is cheap; building loads TensorFlow."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType

from sluice_models import fingerprint, labelled

EXAMPLES = ("temperature", "clips", "dates", "language", "digits", "glyphs")
# Examples of several networks: the name builds all of them, NAME_other and so on one.
NETWORKS = {"digits": ("other", "codes", "detector"), "glyphs": ("other", "codes", "detector")}


class UnknownExample(ValueError):
    """There is no example model of that name; the sentence lists those there are."""


def build(names: Iterable[str], out: Path) -> list[Path]:
    """Train and export example models, all of them if no name is given; what is there is kept where it is up to date.

    Returns:
        The version folders, OUT/NAME/1.

    Raises:
        UnknownExample: a name is none of `EXAMPLES`, and no network of one; nothing was built.
    """
    found = [_networks(name) for name in names or EXAMPLES]
    for network in dict.fromkeys(chain(*found)):
        network.build(Path(out))
    return [first.folder(Path(out)) for first, *_ in found]


def is_built(names: Iterable[str], out: Path) -> bool:
    """Whether `build` would train nothing, which it finds out without TensorFlow.

    Raises:
        UnknownExample: as `build`.
    """
    networks = chain(*(_networks(name) for name in names or EXAMPLES))
    return all(network.is_fresh(Path(out)) for network in networks)


def data(name: str, out: Path) -> Path:
    """Write an example model's data as OUT/NAME.csv, beside it what does not fit into a table, and return that file.

    Beside it, too, are labelled rows, and the request to evaluate the model on them.

    Raises:
        UnknownExample: the name is none of `EXAMPLES`.
    """
    _known(name)
    file: Path = _module(name, "data").write_csv(Path(out))
    labelled.write(_module(name, "labelled").labelled(), Path(out), name)
    return file


@dataclass(frozen=True, slots=True)
class _Network:
    """What is trained and exported by itself: an example model, or one network of one."""

    example: str
    suffix: str = ""
    alone: tuple[str, ...] = ()  # what tells the example's `build` to build this network only

    def folder(self, out: Path) -> Path:
        return out / f"{self.example}{self.suffix}" / "1"

    def is_fresh(self, out: Path) -> bool:
        return fingerprint.is_fresh(self.folder(out), self._fingerprint())

    def build(self, out: Path) -> None:
        folder = self.folder(out)
        if self.is_fresh(out):
            print(f"{folder} is up to date")
            return
        if fingerprint.was_built(folder):
            shutil.rmtree(folder)
        _module(self.example, "model").build(out, *self.alone)
        fingerprint.keep(folder, self._fingerprint())

    def _fingerprint(self) -> str:
        return fingerprint.fingerprint(f"sluice_models.{self.example}.model")


def _networks(name: str) -> list[_Network]:
    example, _, network = name.partition("_")
    if network in NETWORKS.get(example, ()):
        return [_Network(example, f"_{network}", (network,))]
    _known(name)
    if name not in NETWORKS:
        return [_Network(name)]
    return [_Network(name, "", ("closed",)), *(_Network(name, f"_{each}", (each,)) for each in NETWORKS[name])]


def _known(name: str) -> None:
    if name not in EXAMPLES:
        raise UnknownExample(f"expected one of the example models ({', '.join(EXAMPLES)}), got '{name}'")


def _module(name: str, part: str) -> ModuleType:
    return import_module(f"sluice_models.{name}.{part}")
