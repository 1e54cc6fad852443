"""Which versions of which models are served: folders are watched, new versions loaded, old ones kept until then.

It does not know how a version is loaded or called, nor who asks.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from services.model_server.errors import NotFound, ServingError
from services.model_server.servable import Servable

log = structlog.get_logger()

_VERSION = re.compile(r"[0-9]{1,18}")

Loader = Callable[[Path], Servable]
Files = frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model; `state` is TensorFlow Serving's.

    A version that could not be loaded has an `error`, and the `files` it was tried with.
    """

    number: int
    state: str
    error: ServingError | None = field(default=None, kw_only=True)
    files: Files = field(default=frozenset(), kw_only=True)


@dataclass(frozen=True, slots=True)
class Available(Version):
    """A version that can be called. Whoever holds it may finish with it after it has been let go."""

    servable: Servable


@dataclass(frozen=True, slots=True)
class Model:
    """One model's folder and versions. Replaced as a whole, so that a reader never sees half a change."""

    name: str
    path: Path
    versions: Mapping[int, Version] = field(default_factory=dict)

    def with_version(self, version: Version) -> "Model":
        return replace(self, versions={**self.versions, version.number: version})

    @property
    def available(self) -> list[int]:
        return sorted(number for number, version in self.versions.items() if isinstance(version, Available))


class Models:
    """The models of a server. `refresh` looks at the folders once; it is called by one thread only."""

    def __init__(self, folders: Callable[[], Mapping[str, Path]], load: Loader) -> None:
        self._folders = folders
        self._load = load
        self._models: dict[str, Model] = {}

    def refresh(self) -> None:
        """Load what is new, then let go of what it replaces; a model whose folder is gone goes too."""
        folders = self._folders()
        for name, path in folders.items():
            self._models.setdefault(name, Model(name, path))
        for name in [*self._models]:
            try:
                self._refresh(name)
            except OSError as error:
                log.warning("the model's folder cannot be read", model=name, reason=str(error))
            if name not in folders and not self._models[name].versions:
                del self._models[name]

    def watch(self, every_s: float, stopping: threading.Event) -> None:
        """Refresh every `every_s` seconds until told to stop."""
        while not stopping.wait(every_s):
            try:
                self.refresh()
            except OSError as error:
                log.warning("the model folders cannot be read", reason=str(error))

    def find(self, name: str, number: int | None = None) -> Available:
        """The version of that number, or the newest, that can be called.

        Raises:
            NotFound: there is none.
        """
        model = self._models.get(name)
        if model is None or not model.available:
            raise NotFound(f"there is no model {name!r} that is served; there are {sorted(self._models)}")
        version = model.versions.get(model.available[-1] if number is None else number)
        if not isinstance(version, Available):
            raise NotFound(f"model {name!r} has no version {number} that is served; it has {model.available}")
        return version

    def versions(self, name: str, number: int | None = None) -> list[Version]:
        """What is known of a model's versions, the newest first.

        Raises:
            NotFound: nothing is.
        """
        model = self._models.get(name)
        known = model.versions if model else {}
        chosen = [version for _, version in sorted(known.items(), reverse=True) if number in (None, version.number)]
        if not chosen:
            wanted = "" if number is None else f" version {number}"
            raise NotFound(f"there is no model {name!r}{wanted} here")
        return chosen

    def _refresh(self, name: str) -> None:
        found = found_versions(self._models[name].path)
        newest = max(found, default=None)
        if newest is not None and self._is_due(name, newest, found[newest]):
            self._bring_up(name, newest, found[newest])
        self._let_go(name, newest, found)

    def _is_due(self, name: str, number: int, path: Path) -> bool:
        """Whether a version is to be loaded: it is new, was let go before, or was broken and has other files now."""
        known = self._models[name].versions.get(number)
        if isinstance(known, Available):
            return False
        return known is None or known.error is None or known.files != files_in(path)

    def _bring_up(self, name: str, number: int, path: Path) -> None:
        model, files = self._models[name], files_in(path)
        self._models[name] = model.with_version(Version(number, "LOADING"))
        try:
            version: Version = Available(number, "AVAILABLE", self._load(path))
            log.info("version loaded", model=name, version=number)
        except ServingError as error:
            version = Version(number, "END", error=error, files=files)
            log.warning("version cannot be loaded", model=name, version=number, reason=error.message)
        self._models[name] = model.with_version(version)

    def _let_go(self, name: str, newest: int | None, found: Mapping[int, Path]) -> None:
        """Unload what the newest version replaces, or everything if none is left; forget what has no folder."""
        model = self._models[name]
        serving = newest if newest in model.available else max(model.available, default=None) if found else None
        kept: dict[int, Version] = {}
        for number, version in model.versions.items():
            if isinstance(version, Available) and number != serving:
                log.info("version let go", model=name, version=number)
                version = Version(number, "END")  # noqa: PLW2901 - the Session goes with its last call
            if number == serving or number in found:
                kept[number] = version
        self._models[name] = replace(model, versions=kept)


def found_versions(path: Path) -> dict[int, Path]:
    """The complete versions in a model's folder, NAME/VERSION/saved_model.pb, by number."""
    if not path.is_dir():
        return {}
    folders = {int(each.name): each for each in path.iterdir() if _VERSION.fullmatch(each.name)}
    return {number: folder for number, folder in folders.items() if (folder / "saved_model.pb").is_file()}


def folders_in(path: Path) -> dict[str, Path]:
    """Every model in a folder of models, by name."""
    if not path.is_dir():
        return {}
    return {each.name: each for each in sorted(path.iterdir()) if each.is_dir() and found_versions(each)}


def files_in(path: Path) -> Files:
    """Name, size in bytes and time of change of each file below a folder."""
    stats = ((str(each), each.stat()) for each in path.rglob("*"))
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
