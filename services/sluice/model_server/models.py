"""Which versions of which models are served: folders are watched, new versions loaded, old ones kept until then.

It does not know how a version is loaded or called, nor who asks.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

import structlog

from sluice.model_folder import versions_in
from sluice.model_server.config import Configs, check_labels
from sluice.model_server.errors import InvalidArgument, NotFound, ServingError
from sluice.model_server.folders import files_in
from sluice.model_server.servable import Servable
from sluice.model_server.versions import Available, Failure, Model, Retries, Unloading, Version, settled

log = structlog.get_logger()

Loader = Callable[[Path], Servable]

_RETRIES = Retries()
_PAUSE_S = 1.0  # between looks for what is to be tried again, where nothing says how long


class Models:
    """The models of a server. `refresh` looks at their folders once.

    `any_labels`: a new label may be on a version that is not available. `unserved`: what lies beside the models, and
    why it is none, by name; `warns`: the log tells of it. `clock`: seconds.
    """

    def __init__(
        self,
        configs: Callable[[], Configs],
        load: Loader,
        *,
        any_labels: bool = False,
        unserved: Callable[[], Mapping[str, str]] = dict,
        warns: bool = True,
        retries: Retries = _RETRIES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._configs = configs
        self._load = load
        self._any_labels = any_labels
        self._look_beside = unserved
        self._unserved: Mapping[str, str] = {}
        self._warns = warns
        self._retries = retries
        self._clock = clock
        self._models: dict[str, Model] = {}
        self._said: dict[str, str] = {}
        self._changing = threading.Lock()

    def refresh(self) -> None:
        """Load what is new, then let go of what it replaces; a model that is configured no longer goes too."""
        with self._changing:
            self._unserved = self._look_beside()
            for name, reason in self._unserved.items() if self._warns else ():
                self._complain(f"not served: {name}", f"{name} is not served: {reason}")
            self._refresh_all(self._configs())

    def retry(self) -> None:
        """Try to load again what could not be loaded, where it is time; the folders are not looked at."""
        with self._changing:
            for name in [*self._models]:
                self._settle(name)

    def configure(self, configs: Configs) -> None:
        """Serve these models, and no others, from now on; back when their versions have been tried.

        Raises:
            ServingError: FAILED_PRECONDITION: a label is on a version that is not available; nothing has changed.
                UNKNOWN: a new model has no version that can be called; it is served as soon as it has.
        """
        new = configs.keys() - self._models.keys()
        self._apply(configs)
        self._check_available(new)

    def start(self, configs: Configs, every_s: float, stopping: threading.Event) -> None:
        """Configure for the first time, and wait until each model has a version that can be called.

        Raises:
            ServingError: as `configure`, but UNKNOWN only when all tries have been in vain, or nobody looks again.
        """
        self._apply(configs)
        while waiting := [name for name in configs if not self._models[name].available]:
            self._check_available(name for name in waiting if not self._may_come(name, every_s))
            if stopping.wait(self._pause_s(every_s)):
                return
            self._look(every_s)

    def watch(self, every_s: float, stopping: threading.Event) -> None:
        """Refresh every `every_s` seconds until told to stop; 0: only try again what could not be loaded."""
        while not stopping.wait(self._pause_s(every_s)):
            self._look(every_s)

    def knows(self, name: str) -> bool:
        """Whether there is a model of that name."""
        return name in self._models

    def find(self, name: str, number: int | None = None, label: str | None = None) -> Available:
        """The version of that number or label, or the newest, that can be called.

        Raises:
            NotFound: there is none. InvalidArgument: nothing has that label.
        """
        model = self._models.get(name)
        if label is not None:
            number = model.config.labels.get(label) if model else None
            if number is None:
                raise InvalidArgument(f"model {name!r} has no version with the label {label!r}")
        if model is None or not model.available:
            raise NotFound(
                f"there is no model {name!r} that is served; the models here are: "
                f"{', '.join(sorted(self._models)) or 'none'}{self._why(name)}"
            )
        version = model.versions.get(model.available[-1] if number is None else number)
        if not isinstance(version, Available):
            available = ", ".join(map(str, model.available))
            raise NotFound(f"model {name!r} has no version {number} that is served; it has {available}")
        return version

    def versions(self, name: str, number: int | None = None) -> list[Version]:
        """What is known of a model's versions, the newest first.

        Raises:
            NotFound: nothing is.
        """
        model = self._models.get(name)
        known = model.versions if model else {}
        chosen = [settled(each) for _, each in sorted(known.items(), reverse=True) if number in (None, each.number)]
        if not chosen:
            wanted = "" if number is None else f" version {number}"
            raise NotFound(f"there is no model {name!r}{wanted} here{self._why(name)}")
        return chosen

    def _why(self, name: str) -> str:
        """The end of a sentence on a model that is not there."""
        return f": {self._unserved[name]}" if name in self._unserved else ""

    def _apply(self, configs: Configs) -> None:
        with self._changing:
            current = {name: each.config.labels for name, each in self._models.items()}
            available = {name: each.available for name, each in self._models.items()}
            check_labels(configs, available, current if self._any_labels else None)
            self._configs = lambda: configs
            self._refresh_all(configs)

    def _check_available(self, names: Iterable[str]) -> None:
        if missing := [self._reason(name) for name in sorted(names) if not self._models[name].available]:
            raise ServingError("UNKNOWN", f"not available: {'; '.join(missing)}")

    def _reason(self, name: str) -> str:
        model = self._models[name]
        failures = [f"version {number}: {each.error}" for number, each in model.versions.items() if each.error]
        return f"model {name!r}: " + ("; ".join(failures) or f"no version to serve under {model.config.path}")

    def _may_come(self, name: str, every_s: float) -> bool:
        model = self._models[name]
        if not model.chosen:
            return every_s > 0
        failures = (model.versions[number].failure for number in model.chosen)
        return any(failure is None or failure.tries <= self._retries.count for failure in failures)

    def _pause_s(self, every_s: float) -> float:
        """Until it is time to look again."""
        return every_s or max(self._retries.interval_s, _PAUSE_S)

    def _look(self, every_s: float) -> None:
        try:
            self.refresh() if every_s else self.retry()
        except OSError as error:
            self._complain("", f"the model folders cannot be read: {error}")

    def _refresh_all(self, configs: Configs) -> None:
        for name, config in configs.items():
            self._models[name] = replace(self._models.get(name, Model(config)), config=config)
        for name in [*self._models]:
            self._find_versions(name, wanted=name in configs)
            self._settle(name)
            self._end(name)

    def _find_versions(self, name: str, *, wanted: bool) -> None:
        """Look at a model's folder. One that cannot be read changes nothing: what is served goes on."""
        model = self._models[name]
        try:
            found = versions_in(model.config.path) if wanted else {}
        except OSError as error:
            self._complain(name, f"the folder of model {name} cannot be read: {error}")
            return
        self._complain(name, "" if found or not wanted else f"model {name} has no version under {model.config.path}")
        self._models[name] = replace(model, found=found)

    def _complain(self, about: str, reason: str) -> None:
        """Say what is wrong with something once, however often it is looked at; "": nothing is."""
        if reason and self._said.get(about) != reason:
            log.warning(reason)
        self._said[about] = reason

    def _settle(self, name: str) -> None:
        """Load what is chosen and due, the newest first; then let go of the rest."""
        model = self._models[name]
        due = [number for number in model.chosen if self._is_due(model, number)]
        for number in due:
            if number not in model.available:
                self._models[name] = self._models[name].with_version(Version(number, "START"))
        for number in due:
            try:
                self._bring_up(name, number, model.versions.get(number))
            except OSError as error:
                self._complain(f"{name} {number}", f"version {number} of {name} cannot be read: {error}")
        self._let_go(name)

    def _is_due(self, model: Model, number: int) -> bool:
        """Whether a version is to be loaded.

        It is new, was let go before, lies elsewhere now, or was broken and has other files or is to be tried again.
        """
        known = model.versions.get(number)
        if isinstance(known, Available) and known.path == model.found[number]:
            return False
        if known is None or known.failure is None:
            return True
        again = known.failure.tries <= self._retries.count
        waited = self._clock() - known.failure.at_s >= self._retries.interval_s
        return (again and waited) or known.failure.files != files_in(model.found[number])

    def _bring_up(self, name: str, number: int, before: Version | None) -> None:
        """Load a version. If it is available from another folder it stays so until then, and for good if that fails."""
        model = self._models[name]
        path, files = model.found[number], files_in(model.found[number])
        if not isinstance(before, Available):
            self._models[name] = model.with_version(Version(number, "LOADING"))
        try:
            version: Version = Available(number, "AVAILABLE", self._load(path), path=path)
            log.info("version loaded", model=name, version=number)
        except ServingError as error:
            last = before.failure if before else None
            tries = last.tries + 1 if last and last.files == files else 1
            told = ServingError(error.status, error.message)  # without the frames, which hold versions that may go
            failure = Failure(told, files, tries, self._clock())
            version = Version(number, "END", failure=failure)
            if isinstance(before, Available):
                version = replace(before, failure=failure)
            left = max(self._retries.count + 1 - tries, 0)
            log.warning("version cannot be loaded", model=name, version=number, reason=error.message, retries_left=left)
        self._models[name] = self._models[name].with_version(version)

    def _let_go(self, name: str) -> None:
        """Unload what the chosen versions replace, or everything if none is chosen."""
        model = self._models[name]
        serving = {number for number in model.available if number in model.chosen}
        if model.chosen and not serving:
            serving = set(model.available[-1:])
        versions = dict(model.versions)
        for number, version in model.versions.items():
            if isinstance(version, Available) and number not in serving:
                log.info("version let go", model=name, version=number)
                versions[number] = Unloading(number, "UNLOADING", weakref.ref(version.servable))
        self._models[name] = replace(model, versions=versions)

    def _end(self, name: str) -> None:
        """What was let go has ended once nobody holds it; it stays known, as in TensorFlow Serving."""
        model = self._models[name]
        versions = {number: settled(version) for number, version in model.versions.items()}
        self._models[name] = replace(model, versions=versions)
