"""What Prometheus sees of recognition: rows by class and outcome, p-values, how far rows are from the calibration's.

Counting is cheap, as it is done for each row; text is made of it when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice.gateway.core.decisions import Rule, Verdicts
from sluice.policy.drift import Drift
from sluice.policy.recognition import Calibration

_P_VALUES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_METHOD = ["model", "version", "method"]
_ACCEPTED = "accepted"
_Method = tuple[str, str, str]


class RecognitionMetrics(Collector):
    """Counts what becomes of rows. No more is kept of them than each method's latest p-values."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, ...]] = Counter()
        self._p_values: dict[_Method, _Histogram] = {}
        self._drifts: dict[_Method, tuple[Calibration, Drift]] = {}

    def recognized(self, verdicts: Verdicts) -> None:
        rule = verdicts.rule
        method = rule.model, str(rule.version), rule.method
        for result in verdicts.results:
            self._rows[*method, result.closed_set_label, result.reason or _ACCEPTED] += 1
        p_values = [result.p_value for result in verdicts.results]
        self._p_values.setdefault(method, _Histogram()).observe(p_values)
        for place, part in enumerate(rule.parts):  # of two that must agree, the lesser p-value is not spread evenly
            self._drift(part, rule).observe(result.own_p_values[place] for result in verdicts.results)

    def forget(self, model: str, version: int) -> None:
        """A version has gone: its drift is nobody's concern any more."""
        for method in [method for method in self._drifts if method[:2] == (model, str(version))]:
            del self._drifts[method]

    def collect(self) -> Iterator[Metric]:
        rows = CounterMetricFamily(
            "sluice_recognitions",
            "Rows recognized, by the class that the model would have to answer, and accepted or why it is unknown.",
            labels=[*_METHOD, "label", "outcome"],
        )
        for labels, count in self._rows.items():
            rows.add_metric(labels, count)
        spread = HistogramMetricFamily(
            "sluice_recognition_p_values",
            "Which share of the calibration's rows is as strange as a row; spread evenly where rows are like those.",
            labels=_METHOD,
        )
        for method, histogram in self._p_values.items():
            spread.add_metric(method, histogram.buckets(), histogram.sum)
        drift = GaugeMetricFamily(
            "sluice_recognition_drift",
            "How far the scores of the latest 1000 rows are from the calibration's, 0 to 1 (Kolmogorov-Smirnov); "
            "of two methods that must agree, each method's own.",
            labels=_METHOD,
        )
        critical = GaugeMetricFamily(
            "sluice_recognition_drift_critical",
            "The drift that is exceeded once in a thousand times while nothing has changed.",
            labels=_METHOD,
        )
        for method, (_, window) in self._drifts.items():
            drift.add_metric(method, window.distance)
            critical.add_metric(method, window.critical())
        yield from (rows, spread, drift, critical)

    def _drift(self, part: str, rule: Rule) -> Drift:
        """The window of a method, asked for by itself or as one of two; it begins anew with a new calibration."""
        method = rule.model, str(rule.version), part
        calibration, drift = self._drifts.get(method, (None, None))
        if drift is None or calibration is not rule.calibration:
            drift = Drift(len(rule.calibration.methods[part].scores))
            self._drifts[method] = rule.calibration, drift
        return drift


class _Histogram:
    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(_P_VALUES) + 1)

    def observe(self, values: Sequence[float]) -> None:
        for value in values:
            self._counts[bisect_left(_P_VALUES, value)] += 1
            self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """How many values were up to each bound."""
        return list(zip(map(str, (*_P_VALUES, "+Inf")), accumulate(self._counts), strict=True))
