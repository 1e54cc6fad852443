"""What is known of one version of a model, and of a model: values, replaced as a whole.

They do not know when that changes.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sluice.model_server.config import ModelConfig
from sluice.model_server.errors import ServingError
from sluice.model_server.folders import Files
from sluice.model_server.servable import Servable


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a version that cannot be loaded is tried again, and after how many seconds; its state is END meanwhile.

    TensorFlow Serving's defaults.
    """

    count: int = 5
    interval_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version could not be loaded, with which files, how many times, and when last (seconds, monotonic)."""

    error: ServingError
    files: Files
    tries: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model; `state` is TensorFlow Serving's."""

    number: int
    state: str
    failure: Failure | None = field(default=None, kw_only=True)

    @property
    def error(self) -> ServingError | None:
        """Why it cannot be loaded."""
        return self.failure.error if self.failure else None


@dataclass(frozen=True, slots=True)
class Available(Version):
    """A version that can be called, from `path`. Whoever holds it may finish with it after it has been let go.

    It has a failure where another folder was to take its place and could not be loaded.
    """

    servable: Servable
    path: Path = field(default=Path(), kw_only=True)


@dataclass(frozen=True, slots=True)
class Unloading(Version):
    """A version that was let go, with calls that may still hold it."""

    held: "weakref.ref[Servable]"


def settled(version: Version) -> Version:
    """The version as it is now: one that was let go ends with the last call that holds it."""
    if isinstance(version, Unloading) and version.held() is None:
        return Version(version.number, "END")
    return version


@dataclass(frozen=True, slots=True)
class Model:
    """A model's configuration, the versions that were found in its folder, and what became of them."""

    config: ModelConfig
    versions: Mapping[int, Version] = field(default_factory=dict)
    found: Mapping[int, Path] = field(default_factory=dict)

    def with_version(self, version: Version) -> "Model":
        return replace(self, versions={**self.versions, version.number: version})

    @property
    def chosen(self) -> list[int]:
        """The versions that are to be served, the newest first."""
        return sorted(self.config.policy(self.found), reverse=True)

    @property
    def available(self) -> list[int]:
        return sorted(number for number, version in self.versions.items() if isinstance(version, Available))
