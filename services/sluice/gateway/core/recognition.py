"""Recognition: rows to logits and scores, batched with other clients', and from these to a class or *unknown*.

It does not know HTTP, gRPC or JSON; which rows are known is a rule.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.calibrations import Calibrations
from sluice.gateway.core.decisions import Answered, Decisions, Rule, Watcher
from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.core.predict import Predict, Prediction, Predictions
from sluice.gateway.core.resolve import ModelSpec, Resolver
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Detector, Recognition, Signature
from sluice.policy.errors import BackendError, BackendUnavailable, NotFound, SluiceError
from sluice.policy.plausibility import check_values
from sluice.policy.recognition import Calibration, check_options, parts_of, threshold_of
from sluice.policy.scores import detector as detector_score

Array = NDArray[Any]

_DETECTOR = "detector"
_RULES_LIMIT = 256  # of one version that are remembered; a level is any number


class Options(NamedTuple):
    """How rows are recognized: without `method` and `level` the calibration's are meant.

    `top_k` is how many candidates a row has; `sets` asks for prediction sets, too.
    """

    method: str | None = None
    level: float | None = None
    top_k: int = 3
    sets: bool = False


class Recognitions:
    """Carries out recognize requests."""

    def __init__(
        self, resolver: Resolver, predictions: Predictions, calibrations: Calibrations, watcher: Watcher
    ) -> None:
        self._resolver = resolver
        self._predictions = predictions
        self._calibrations = calibrations
        self._rules: dict[tuple[str, int], tuple[Calibration, dict[tuple[str, float, int, bool], Rule]]] = {}
        self._decisions = Decisions(watcher)

    def submit(
        self, served: ServedVersion, rule: Rule, inputs: Mapping[str, Array], terms: Terms, pending: Pending
    ) -> None:
        """Recognize rows by a rule of `rule`; `inputs` are those of its signature, and the outcome is `Verdicts`.

        Raises:
            InputNotFinite, BadRequest, and what `Predictions.submit` raises: it is refused.
        """
        for name, rows in inputs.items():
            check_values(name, rows, rule.recognition.range)
        answers = Pending(partial(self._answered, rule, pending))
        pending.runs(Pending.cancel, answers)
        call = Predict(rule.signature, inputs, rule.outputs)
        if rule.recognition.detector is None or _DETECTOR not in rule.parts:
            self._predictions.submit(served, call, terms, answers.then(_alone))
            return
        own, beside = answers.parts(2)
        self._predictions.submit(served, call, terms, own)
        self._detect(served, rule.recognition.detector, inputs, terms, beside)

    def forget(self, model: str, version: int) -> None:
        """A version has gone."""
        self._rules.pop((model, version), None)

    def rule(self, served: ServedVersion, asked: Options) -> Rule:
        """By what rows are decided.

        Raises:
            UnsupportedByModel, NotCalibrated, BadRequest.
        """
        recognition, calibration = served.recognition(), self._calibrations.of(served)
        method = calibration.default_method if asked.method is None else asked.method
        level = calibration.level if asked.level is None else asked.level
        key, options = (served.model, served.version), (method, level, asked.top_k, asked.sets)
        known, rules = self._rules.get(key, (None, {}))
        if known is not calibration or len(rules) > _RULES_LIMIT:
            rules = {}
            self._rules[key] = calibration, rules
        if options not in rules:
            check_options(recognition, calibration, method, level, asked.top_k, sets=asked.sets)
            parts, threshold = parts_of(method), threshold_of(calibration, method, level)
            computed = tuple(part for part in parts if part in recognition.scores)
            rules[options] = Rule(
                served.model, served.version, recognition, calibration, method, level, asked.top_k, asked.sets,
                threshold, parts, computed, *_asked_of(served, recognition, computed),
            )  # fmt: skip
        return rules[options]

    def _answered(self, rule: Rule, pending: Pending, outcome: "tuple[Prediction, Array | None] | SluiceError") -> None:
        """The model has answered, and the network in front, if there is one."""
        if isinstance(outcome, SluiceError):
            pending.settle(outcome)
            return
        prediction, detected = outcome
        arrays, recognition = prediction.arrays, rule.recognition
        scores = {method: arrays[recognition.scores[method]] for method in rule.computed}
        if detected is not None:
            scores[_DETECTOR] = detected
        self._decisions.add(Answered(rule, arrays[recognition.logits], scores, pending))

    def _detect(
        self, served: ServedVersion, detector: Detector, inputs: Mapping[str, Array], terms: Terms, pending: Pending
    ) -> None:
        """Ask the network in front about the same rows; the outcome is its scores."""

        def begin(found: ServedVersion, pending: Pending) -> None:
            recognition = found.recognition()
            _check_same_inputs(served, found, recognition)
            signature = found.predicted(found.entry(recognition.signature))
            call = Predict(signature, inputs, _wanted(recognition.signature, (recognition.logits,)))
            scored = pending.then(lambda outcome: _detected(recognition, detector, outcome.arrays))
            self._predictions.submit(found, call, terms, scored)

        def settled(outcome: Any) -> None:
            pending.settle(_no_detector(served, detector) if isinstance(outcome, NotFound) else outcome)

        beside = Pending(settled)
        pending.runs(Pending.cancel, beside)
        self._resolver.resolve(ModelSpec(detector.model), terms.deadline, begin, beside)


def _alone(prediction: Prediction) -> tuple[Prediction, None]:
    return prediction, None


def _asked_of(
    served: ServedVersion, recognition: Recognition, computed: Sequence[str]
) -> tuple[Signature, tuple[str, ...]]:
    """The signature that gives the logits and these scores, and which of its outputs are wanted."""
    signature = (recognition.scores_signature if computed else None) or recognition.signature
    outputs = recognition.logits, *(recognition.scores[method] for method in computed)
    return served.predicted(served.entry(signature)), _wanted(signature, outputs)


def _wanted(signature: Signature, outputs: Sequence[str]) -> tuple[str, ...]:
    """As `Predict` takes them; rows for which all outputs are wanted share batches with those of plain predicts."""
    return () if set(outputs) == signature.outputs.keys() else tuple(outputs)


def _check_same_inputs(served: ServedVersion, detector: ServedVersion, recognition: Recognition) -> None:
    forms = {name: (tensor.dtype, tensor.shape) for name, tensor in served.recognition().signature.inputs.items()}
    own = {name: (tensor.dtype, tensor.shape) for name, tensor in recognition.signature.inputs.items()}
    if own != forms:
        raise BackendError(
            f"Model {served.model!r} names {detector.model!r} as its detector, which takes other inputs than it does: "
            f"{recognition.signature}. Serve a detector with the same inputs."
        )


def _detected(recognition: Recognition, detector: Detector, arrays: Mapping[str, Array]) -> Array:
    logits = arrays[recognition.logits]
    if logits.ndim != 2 or logits.shape[1] != 2 or not np.isfinite(logits).all():
        raise BackendError(
            f"The detector {detector.model!r} must answer finite {recognition.logits!r} [batch, 2]; what came has the "
            f"shape {list(logits.shape)}."
        )
    return detector_score(logits, detector.known)


def _no_detector(served: ServedVersion, detector: Detector) -> BackendUnavailable:
    return BackendUnavailable(
        f"The method {_DETECTOR!r} of model {served.model!r} takes model {detector.model!r}, which is not served. "
        "Serve it beside the other, or choose another method."
    )
