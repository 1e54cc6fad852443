"""Recognition: rows to logits and scores, batched with other clients', and from these to a class or *unknown*.

It does not know HTTP, gRPC or JSON; which rows are known is a rule.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.calibrations import Calibrations
from sluice.gateway.core.decisions import Decisions, Read, RecognizeCall, Rule, Watcher
from sluice.gateway.core.joint import together
from sluice.gateway.core.predict import Cancel, Done, ModelSpec, Predict, Prediction, Predictions
from sluice.gateway.upstream.catalog import ServedVersion
from sluice.policy.batch import PRIORITIES
from sluice.policy.contract import Detector, Recognition, Signature
from sluice.policy.errors import BackendError, BackendUnavailable, NotFound, SluiceError
from sluice.policy.recognition import Calibration, check_options, parts_of, threshold_of
from sluice.policy.scores import detector as detector_score

Array = NDArray[Any]

_DETECTOR = "detector"
_RULES_LIMIT = 256  # of one version that are remembered; a level is any number


class Recognize(NamedTuple):
    """What is asked: `read` gives the rows' inputs, as that of `Predict`, and `top_k` is how many candidates a row has.

    Without `method` and `level` the calibration's are meant; `sets` asks for prediction sets, too.
    """

    which: ModelSpec
    read: Read
    method: str | None = None
    level: float | None = None
    top_k: int = 3
    sets: bool = False
    priority_s: float = PRIORITIES["normal"]


class Recognitions:
    """Carries out recognize requests."""

    def __init__(self, predictions: Predictions, calibrations: Calibrations, watcher: Watcher) -> None:
        self._predictions = predictions
        self._calibrations = calibrations
        self._rules: dict[tuple[str, int], tuple[Calibration, dict[tuple[str, float, int, bool], Rule]]] = {}
        self._decisions = Decisions(watcher)

    def begin(self, asked: Recognize, deadline: float, done: Done) -> Cancel:
        """Begin a request; what it returns cancels it. `done` gets `Verdicts` or a `SluiceError`, from the loop, once.

        Raises:
            UnsupportedByModel, NotCalibrated, BadRequest, and what `Predictions.begin` raises: it is refused.
        """

        def run(served: ServedVersion, done: Done) -> Cancel:
            return self._run(served, asked, deadline, done)

        return self._predictions.on_version(asked.which, deadline, run, done)

    def forget(self, model: str, version: int) -> None:
        """A version has gone."""
        self._rules.pop((model, version), None)

    def _run(self, served: ServedVersion, asked: Recognize, deadline: float, done: Done) -> Cancel:
        rule = self._rule(served, asked)
        case = RecognizeCall(rule, asked.read, done)
        call = Predict(
            served.model, rule.signature, case.read, served.version, outputs=rule.outputs, priority_s=asked.priority_s
        )
        if rule.recognition.detector is None or _DETECTOR not in rule.parts:
            case.stop = self._predictions.submit(served, call, deadline, partial(self._answered, case))
        else:
            own = partial(self._predictions.submit, served, call, deadline)
            beside = partial(self._detect, served, rule.recognition.detector, case, asked, deadline)
            case.stop = together((own, beside), partial(self._both_answered, case))
        return case.withdraw

    def _rule(self, served: ServedVersion, asked: Recognize) -> Rule:
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

    def _answered(self, case: RecognizeCall, outcome: Prediction | SluiceError, detected: Array | None = None) -> None:
        """The model has answered, and the network in front, if there is one."""
        if isinstance(outcome, SluiceError):
            case.end(outcome)
            return
        arrays, recognition = outcome.arrays, case.rule.recognition
        case.logits = arrays[recognition.logits]
        case.scores = {method: arrays[recognition.scores[method]] for method in case.rule.computed}
        if detected is not None:
            case.scores = {**case.scores, _DETECTOR: detected}
        self._decisions.add(case)

    def _both_answered(self, case: RecognizeCall, outcome: Sequence[Any] | SluiceError) -> None:
        if isinstance(outcome, SluiceError):
            case.end(outcome)
        else:
            self._answered(case, *outcome)

    def _detect(
        self,
        served: ServedVersion,
        detector: Detector,
        case: RecognizeCall,
        asked: Recognize,
        deadline: float,
        done: Done,
    ) -> Cancel:
        """Ask the network in front about the same rows; `done` gets its scores."""

        def run(found: ServedVersion, done: Done) -> Cancel:
            recognition = found.recognition()
            _check_same_inputs(served, found, recognition)
            outputs = _wanted(recognition.signature, (recognition.logits,))
            call = Predict(
                found.model, found.entry(recognition.signature), lambda *_: case.inputs, found.version,
                outputs=outputs, priority_s=asked.priority_s,
            )  # fmt: skip
            return self._predictions.submit(found, call, deadline, partial(scored, recognition, done))

        def scored(recognition: Recognition, done: Done, outcome: Prediction | SluiceError) -> None:
            done(outcome if isinstance(outcome, SluiceError) else _detected(recognition, detector, outcome.arrays))

        def told(outcome: Any) -> None:
            done(_no_detector(served, detector) if isinstance(outcome, NotFound) else outcome)

        return self._predictions.on_version(ModelSpec(detector.model), deadline, run, told)


def _asked_of(served: ServedVersion, recognition: Recognition, computed: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The signature that gives the logits and these scores, as clients call it, and which of its outputs are wanted."""
    signature = (recognition.scores_signature if computed else None) or recognition.signature
    outputs = recognition.logits, *(recognition.scores[method] for method in computed)
    return served.entry(signature), _wanted(signature, outputs)


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


def _detected(recognition: Recognition, detector: Detector, arrays: Mapping[str, Array]) -> Array | BackendError:
    logits = arrays[recognition.logits]
    if logits.ndim != 2 or logits.shape[1] != 2 or not np.isfinite(logits).all():
        return BackendError(
            f"The detector {detector.model!r} must answer finite {recognition.logits!r} [batch, 2]; what came has the "
            f"shape {list(logits.shape)}."
        )
    return detector_score(logits, detector.known)


def _no_detector(served: ServedVersion, detector: Detector) -> BackendUnavailable:
    return BackendUnavailable(
        f"The method {_DETECTOR!r} of model {served.model!r} takes model {detector.model!r}, which is not served. "
        "Serve it beside the other, or choose another method."
    )
