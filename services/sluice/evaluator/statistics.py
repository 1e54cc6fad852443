"""Metrics with confidence intervals, by a bootstrap over rows, or over sessions where the rows of one hang together.

It does not know what the metrics are of. Intervals are percentiles of the metrics of rows that are drawn with
replacement (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13). Of more than 10,000 rows or
sessions, 10,000 of them are drawn by chance, once, and resampled; the interval's distances from their own metric, times
√(10,000 / n), then stand around the metric of all (the root-n rate of Bickel, Götze & van Zwet 1997, "Resampling fewer
than n observations"). So the cost has a bound, whatever the size of the data.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sluice.evaluator.document import Metric
from sluice.evaluator.tasks.task import Array, Measure, Values

_MOST = 10_000  # rows or sessions that are resampled
_DEFINED = 0.95  # share of the resamples in which a metric must be defined for an interval
_BATCH = 16  # resamples that are drawn at a time

Metrics = Callable[[NDArray[np.int64]], Array]  # places of rows, some of them several times → float64 `[metric]`


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are found: `level` is their coverage; `sessions` are those of the rows, by name, `[rows]`.

    `go_on` is called between resamples; what it raises ends them.
    """

    level: float
    resamples: int
    seed: int
    sessions: NDArray[Any] | None = None
    go_on: Callable[[], object] = bool

    def intervals(self, metrics: Metrics, rows: int) -> tuple[Array, Array, str]:
        """Low and high of each metric, NaN where there are none, and why there are none for any."""
        units = _Units.of(rows, self.sessions)
        if len(units) < 2:
            return *np.full((2, len(metrics(np.arange(rows)))), np.nan), f"no interval: {units.name} alone"
        rng = np.random.default_rng(self.seed)
        drawn = np.arange(len(units))
        if len(units) > _MOST:
            drawn = np.sort(rng.choice(len(units), _MOST, replace=False))

        def of_resamples(resamples: NDArray[np.int64], axis: int) -> Array:  # noqa: ARG001 - scipy names the last one
            self.go_on()
            found = np.stack([metrics(units.rows(each)) for each in resamples], axis=-1)
            return np.where(np.isfinite(found), found, np.nan)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # metrics may be undefined for some
            found = stats.bootstrap(
                (drawn,), of_resamples, vectorized=True, n_resamples=self.resamples, batch=_BATCH, rng=rng,
                method="percentile", confidence_level=self.level,
            ).bootstrap_distribution  # fmt: skip
        low, high = _percentiles(found, self.level)
        if len(drawn) < len(units):
            own, whole = metrics(units.rows(drawn)), metrics(np.arange(rows))
            narrower = np.sqrt(len(drawn) / len(units))
            low, high = whole + narrower * (low - own), whole + narrower * (high - own)
        return low, high, ""


def metrics_of(measures: Mapping[str, Measure], values: Values, bootstrap: Bootstrap) -> dict[str, Metric]:
    """Each metric with its interval; what is undefined says why. `values` are of all rows, with `weight`."""
    found = np.array([measure.of(values) for measure in measures.values()])
    low, high, no_interval = bootstrap.intervals(
        lambda places: np.array([measure.of(Resampled(values, places)) for measure in measures.values()]),
        len(values["weight"]),
    )
    return {
        name: metric(measure, *each, no_interval, measure.missing(values))
        for (name, measure), each in zip(
            measures.items(), zip(found.tolist(), low.tolist(), high.tolist(), strict=True), strict=True
        )
    }


def metric(measure: Measure, value: float, low: float, high: float, no_interval: str, missing: str) -> Metric:
    """A number and its bounds as a document has them: what is not finite is None, and says why."""
    about = Metric(value=None, better=measure.better, share=measure.share, unit=measure.unit)
    if not np.isfinite(value):
        reason = "it is infinite" if np.isinf(value) else missing or "these rows do not define it"
        return about.model_copy(update={"note": f"Undefined: {reason}."})
    if not (np.isfinite(low) and np.isfinite(high)):
        reason = no_interval or "no interval: undefined for too many resamples"
        return about.model_copy(update={"value": value, "note": f"{reason[:1].upper()}{reason[1:]}."})
    return about.model_copy(update={"value": value, "low": low, "high": high})


class Resampled(Mapping[str, Array]):
    """The values of some rows, each of which is looked up when it is asked for: large outputs mostly are not."""

    def __init__(self, values: Values, places: NDArray[np.int64]) -> None:
        self._values = values
        self._places = places
        self._found: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._found:
            self._found[name] = self._values[name][self._places]
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def weighing(values: Values) -> Values:
    """Those of the rows that have a weight, as what the others have does not count, NaN among it; all if none has."""
    places = np.flatnonzero(values["weight"])
    return Resampled(values, places) if 0 < len(places) < len(values["weight"]) else values


@dataclass(frozen=True, slots=True)
class _Units:
    """What is resampled: rows, or sessions with the rows of each in `order`, from `starts` on."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    name: str

    @classmethod
    def of(cls, rows: int, sessions: NDArray[Any] | None) -> "_Units":
        if sessions is None:
            return cls(np.arange(rows), np.arange(rows + 1), "one row")
        _, counts = np.unique(sessions, return_counts=True)
        order, starts = np.argsort(sessions, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
        return cls(order, starts, "one session")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of all rows of these, one after another."""
        lengths = self.starts[units + 1] - self.starts[units]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found: NDArray[np.int64] = self.order[np.repeat(self.starts[units], lengths) + within]
        return found


def _percentiles(found: Array, level: float) -> Sequence[Array]:
    """The bounds of each metric, of `[metric, resample]`, over the resamples that define it, if these are enough."""
    defined = ~np.isnan(found)
    bounds = np.full((2, len(found)), np.nan)
    for place in np.flatnonzero(defined.mean(axis=1) >= _DEFINED).tolist():
        bounds[:, place] = np.quantile(found[place, defined[place]], [(1 - level) / 2, (1 + level) / 2])
    return [*bounds]
