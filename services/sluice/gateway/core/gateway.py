"""One gateway: its models, its sessions, its engine, and the kinds of calls, once for all transports.

It does not know HTTP, gRPC or JSON.
"""

from typing import Protocol

from sluice.gateway.core.buckets import BucketTable
from sluice.gateway.core.calibrations import Calibrations
from sluice.gateway.core.decisions import Watcher as RecognitionWatcher
from sluice.gateway.core.engine import Engine
from sluice.gateway.core.generation import Generations
from sluice.gateway.core.generation import Watcher as GenerationWatcher
from sluice.gateway.core.pending import Terms
from sluice.gateway.core.predict import Predictions
from sluice.gateway.core.recognition import Recognitions
from sluice.gateway.core.resolve import Resolver
from sluice.gateway.core.sessions import Sessions
from sluice.gateway.settings import Settings
from sluice.gateway.upstream.catalog import Catalog
from sluice.policy.batch import PRIORITIES
from sluice.policy.generation import Limits


class Watcher(GenerationWatcher, RecognitionWatcher, Protocol):
    """Hears of what does not show in batches."""


class Gateway:
    """What the doors call."""

    def __init__(self, settings: Settings, catalog: Catalog, engine: Engine, watcher: Watcher) -> None:
        self.settings = settings
        self.catalog = catalog
        self.engine = engine
        self.timeout_s = settings.timeout_ms / 1000  # of calls that say nothing of it
        self.buckets = BucketTable(settings.bucket_options)
        self.resolver = Resolver(catalog)
        self.sessions = Sessions(settings, catalog, engine, self.resolver)
        largest, rows_limit = settings.batching.max_rows, settings.queue_rows
        self.predictions = Predictions(engine, self.buckets, largest, rows_limit, settings.body_bytes)
        self.generations = Generations(engine, self.resolver, self.buckets, watcher, Limits(), largest, rows_limit)
        self.calibrations = Calibrations(settings.calibrations, catalog.at_hand)
        self.recognitions = Recognitions(self.resolver, self.predictions, self.calibrations, watcher)

    @property
    def draining(self) -> bool:
        """Whether it is stopping: it opens no more sessions."""
        return self.sessions.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self.sessions.draining = value

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.catalog.ready and not self.draining

    def now(self) -> float:
        """The engine's time, in seconds."""
        return self.engine.now()

    def terms(
        self, timeout_s: float | None = None, priority_s: float = PRIORITIES["normal"], exact: bool = False
    ) -> Terms:
        """Those of a call that has arrived now; without a timeout the setting's."""
        return Terms(self.engine.now() + (self.timeout_s if timeout_s is None else timeout_s), priority_s, exact)

    def forget(self, model: str, version: int) -> None:
        """A version has gone."""
        self.buckets.forget(model, version)
        self.calibrations.forget(model, version)
        self.recognitions.forget(model, version)

    def known(self, model: str) -> str:
        """A model's name for metrics: empty if there is none such, so that names stay few."""
        return model if model in self.catalog.models else ""
