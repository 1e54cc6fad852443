"""Which versions of which models are served: folders are watched, new versions loaded, old ones kept until then."""

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


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model; `servable` while it is AVAILABLE, `error` where it could not be loaded."""

    number: int
    state: str
    servable: Servable | None = None
    error: ServingError | None = None


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
        return sorted(number for number, version in self.versions.items() if version.state == "AVAILABLE")


class Models:
    """The models of a server. `refresh` looks at the folders once; it is called by one thread only."""

    def __init__(self, folders: Callable[[], Mapping[str, Path]], load: Loader) -> None:
        self._folders = folders
        self._load = load
        self._models: dict[str, Model] = {}

    def refresh(self) -> None:
        """Load what is new, then let go of what it replaces."""
        folders = self._folders()
        for name, path in folders.items():
            self._models.setdefault(name, Model(name, path))
            self._refresh(name)
        for name in [name for name in self._models if name not in folders]:
            del self._models[name]
            log.info("model gone", model=name)

    def watch(self, every_s: float, stopping: threading.Event) -> None:
        """Refresh every `every_s` seconds until told to stop."""
        while not stopping.wait(every_s):
            try:
                self.refresh()
            except OSError as error:
                log.warning("the model folders cannot be read", reason=str(error))

    def find(self, name: str, number: int | None = None) -> Version:
        """The version of that number, or the newest, that can be called.

        Raises:
            NotFound: there is none.
        """
        model = self._models.get(name)
        if model is None or not model.available:
            raise NotFound(f"there is no model {name!r} that is served; there are {sorted(self._models)}")
        chosen = model.available[-1] if number is None else number
        if chosen not in model.available:
            raise NotFound(f"model {name!r} has no version {chosen} that is served; it has {model.available}")
        return model.versions[chosen]

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
        model = self._models[name]
        numbers = found_versions(model.path)
        newest = max(numbers, default=None)
        if newest is not None and newest not in model.versions:
            self._bring_up(name, newest)
        self._let_go(name, numbers)

    def _bring_up(self, name: str, number: int) -> None:
        model = self._models[name]
        self._models[name] = model.with_version(Version(number, "LOADING"))
        try:
            version = Version(number, "AVAILABLE", servable=self._load(model.path / str(number)))
            log.info("version loaded", model=name, version=number)
        except ServingError as error:
            version = Version(number, "END", error=error)
            log.warning("version cannot be loaded", model=name, version=number, reason=error.message)
        self._models[name] = model.with_version(version)

    def _let_go(self, name: str, numbers: list[int]) -> None:
        """Forget versions that a newer one replaces, and those whose folder is gone."""
        model = self._models[name]
        serving = model.available[-1] if model.available else None
        kept = {
            number: version
            for number, version in model.versions.items()
            if number == serving or (version.state != "AVAILABLE" and number in numbers)
        }
        if serving is not None and serving not in numbers and not numbers:
            kept.pop(serving)
        for number in model.versions.keys() - kept.keys():
            log.info("version let go", model=name, version=number)
        self._models[name] = replace(model, versions=kept)


def found_versions(path: Path) -> list[int]:
    """The complete versions in a model's folder, NAME/VERSION/saved_model.pb."""
    if not path.is_dir():
        return []
    folders = [each for each in path.iterdir() if _VERSION.fullmatch(each.name)]
    return sorted(int(each.name) for each in folders if (each / "saved_model.pb").is_file())


def folders_in(path: Path) -> dict[str, Path]:
    """Every model in a folder of models, by name."""
    if not path.is_dir():
        return {}
    return {each.name: each for each in sorted(path.iterdir()) if each.is_dir() and found_versions(each)}
