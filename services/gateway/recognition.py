"""Recognition: rows to logits and scores, batched with other clients', and from these to a class or *unknown*.

It does not know HTTP, gRPC or JSON; which rows are known is a rule.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from services.gateway.calibrations import Calibrations
from services.gateway.catalog import ServedVersion
from services.gateway.joint import together
from services.gateway.predict import Cancel, Done, Predict, Prediction, Predictions, Which
from services.policy.batch import PRIORITIES
from services.policy.contract import Detector, Recognition, Signature
from services.policy.errors import BackendError, BackendUnavailable, Internal, NotFound, SluiceError
from services.policy.plausibility import check_values
from services.policy.recognition import (
    Calibration,
    Recognized,
    check_options,
    decide,
    parts_of,
    threshold_of,
)
from services.policy.scores import detector as detector_score

Array = NDArray[Any]
Inputs = Mapping[str, Array]
log = structlog.get_logger()

_BUG = "Something went wrong inside the gateway; it has been logged."
_DETECTOR = "detector"
_RULES_LIMIT = 256  # of one calibration that are remembered; a level is any number


@dataclass(frozen=True, slots=True)
class Recognize:
    """What is asked: `read` gives the rows' inputs, as that of `Predict`, and `top_k` is how many candidates a row has.

    Without `method` and `level` the calibration's are meant; `sets` asks for prediction sets, too.
    """

    which: Which
    read: Callable[[Signature, int], Inputs]
    method: str | None = None
    level: float | None = None
    top_k: int = 3
    sets: bool = False
    handicap_s: float = PRIORITIES["normal"]


@dataclass(frozen=True, eq=False)
class Rule:
    """By what the rows of a request are decided, equal to itself only.

    `threshold` is None where it is not the same for all rows; then each has its own.
    """

    model: str
    version: int
    recognition: Recognition
    calibration: Calibration
    method: str
    level: float
    top_k: int
    sets: bool
    threshold: float | None
    parts: tuple[str, ...]  # the methods that it consists of

    @property
    def computed(self) -> tuple[str, ...]:
        """The methods whose scores the model itself computes."""
        return tuple(part for part in self.parts if part in self.recognition.scores)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What came of each row of a request, and by which rule."""

    rule: Rule
    results: Sequence[Recognized]


class Watcher(Protocol):
    """Hears of rows that were recognized."""

    def recognized(self, verdicts: Verdicts) -> None: ...


class Recognitions:
    """Carries out recognize requests."""

    def __init__(self, predictions: Predictions, calibrations: Calibrations, watcher: Watcher) -> None:
        self._predictions = predictions
        self._calibrations = calibrations
        self._rules: WeakKeyDictionary[Calibration, dict[tuple[Any, ...], Rule]] = WeakKeyDictionary()
        self._court = _Court(watcher)

    def begin(self, asked: Recognize, deadline: float, done: Done) -> Cancel:
        """Begin a request; what it returns cancels it. `done` gets `Verdicts` or a `SluiceError`, from the loop, once.

        Raises:
            UnsupportedByModel, NotCalibrated, BadRequest, and what `Predictions.begin` raises: it is refused.
        """

        def run(served: ServedVersion, done: Done) -> Cancel:
            return self._run(served, asked, deadline, done)

        return self._predictions.on_version(asked.which, deadline, run, done)

    def _run(self, served: ServedVersion, asked: Recognize, deadline: float, done: Done) -> Cancel:
        rule = self._rule(served, asked)
        hearing = _Hearing(rule, self._court, done)
        inputs: dict[str, Array] = {}
        call = _own_call(served, rule, asked, inputs)
        if rule.recognition.detector is None or _DETECTOR not in rule.parts:
            hearing.cancel_calls = self._predictions.submit(served, call, deadline, hearing.answered)
            return hearing.cancel
        beside = partial(self._detect, served, rule.recognition.detector, inputs, asked, deadline)
        hearing.cancel_calls = together(
            (lambda done: self._predictions.submit(served, call, deadline, done), beside), hearing.both_answered
        )
        return hearing.cancel

    def _rule(self, served: ServedVersion, asked: Recognize) -> Rule:
        recognition, calibration = served.recognition(), self._calibrations.of(served)
        method = calibration.default_method if asked.method is None else asked.method
        level = calibration.level if asked.level is None else asked.level
        key = (recognition.signature, method, level, asked.top_k, asked.sets)
        rules = self._rules.setdefault(calibration, {})
        if key not in rules:
            check_options(recognition, calibration, method, level, asked.top_k, sets=asked.sets)
            if len(rules) == _RULES_LIMIT:
                rules.clear()
            rules[key] = Rule(
                served.model, served.version, recognition, calibration, method, level, asked.top_k, asked.sets,
                threshold_of(calibration, method, level), parts_of(method),
            )  # fmt: skip
        return rules[key]

    def _detect(
        self, served: ServedVersion, detector: Detector, inputs: Inputs, asked: Recognize, deadline: float, done: Done
    ) -> Cancel:
        """Ask the network in front about the same rows; `done` gets its scores."""

        def run(found: ServedVersion, done: Done) -> Cancel:
            recognition = found.recognition()
            _check_same_inputs(served, found, recognition)
            outputs = _wanted(recognition.signature, (recognition.logits,))
            call = Predict(
                found.model, found.entry(recognition.signature), lambda *_: inputs, found.version,
                outputs=outputs, handicap_s=asked.handicap_s,
            )  # fmt: skip
            return self._predictions.submit(found, call, deadline, partial(scored, recognition, done))

        def scored(recognition: Recognition, done: Done, outcome: Prediction | SluiceError) -> None:
            done(outcome if isinstance(outcome, SluiceError) else _detected(recognition, detector, outcome.arrays))

        def told(outcome: Any) -> None:
            done(_no_detector(served, detector) if isinstance(outcome, NotFound) else outcome)

        return self._predictions.on_version(Which(detector.model), deadline, run, told)


class _Hearing:
    """One request from its calls to its verdicts."""

    def __init__(self, rule: Rule, court: "_Court", done: Done) -> None:
        self.rule = rule
        self.done: Done | None = done
        self.cancel_calls: Cancel = lambda: None
        self.logits = np.empty(0)
        self.scores: dict[str, Array] = {}
        self._court = court

    def cancel(self) -> None:
        self.done = None
        self.cancel_calls()

    def answered(self, outcome: Prediction | SluiceError, detected: Array | None = None) -> None:
        """The model has answered, and the network in front, if there is one."""
        if isinstance(outcome, SluiceError):
            self.end(outcome)
            return
        arrays, recognition = outcome.arrays, self.rule.recognition
        self.logits = arrays[recognition.logits]
        self.scores = {method: arrays[recognition.scores[method]] for method in self.rule.computed}
        if detected is not None:
            self.scores[_DETECTOR] = detected
        self._court.hear(self)

    def both_answered(self, outcome: Sequence[Any] | SluiceError) -> None:
        if isinstance(outcome, SluiceError):
            self.end(outcome)
        else:
            self.answered(*outcome)

    def end(self, outcome: Verdicts | SluiceError) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(outcome)


class _Court:
    """Decides what was answered in one turn of the loop at once: a rule costs more by call than by row."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._waiting: dict[Rule, list[_Hearing]] = {}

    def hear(self, hearing: _Hearing) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._sit)
        self._waiting.setdefault(hearing.rule, []).append(hearing)

    def _sit(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for rule, heard in waiting.items():
            hearings = [hearing for hearing in heard if hearing.done is not None]
            try:
                self._decide(rule, hearings)
            except SluiceError:  # one's answer is not the others' fault
                for hearing in hearings:
                    self._decide_alone(rule, hearing)

    def _decide_alone(self, rule: Rule, hearing: _Hearing) -> None:
        try:
            self._decide(rule, [hearing])
        except SluiceError as error:
            hearing.end(error)

    def _decide(self, rule: Rule, hearings: Sequence[_Hearing]) -> None:
        """Raises: BackendError: one of the answers is of no use."""
        if not hearings:
            return
        try:
            results = self._results(rule, hearings)
        except SluiceError:
            raise
        except Exception:
            log.exception("rows could not be recognized", model=rule.model, method=rule.method)
            for hearing in hearings:
                hearing.end(Internal(_BUG))
            return
        ends = np.cumsum([0, *(len(hearing.logits) for hearing in hearings)]).tolist()
        for hearing, (start, end) in zip(hearings, pairwise(ends), strict=True):
            verdicts = Verdicts(rule, results[start:end])
            self._watcher.recognized(verdicts)
            hearing.end(verdicts)

    def _results(self, rule: Rule, hearings: Sequence[_Hearing]) -> list[Recognized]:
        return decide(
            rule.recognition,
            rule.calibration,
            rule.method,
            rule.level,
            _joined([hearing.logits for hearing in hearings]),
            {name: _joined([hearing.scores[name] for hearing in hearings]) for name in hearings[0].scores},
            rule.top_k,
            sets=rule.sets,
        )


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _own_call(served: ServedVersion, rule: Rule, asked: Recognize, inputs: dict[str, Array]) -> Predict:
    """The call for the logits, and for the scores that are needed; `inputs` are filled when it is read."""
    recognition = rule.recognition
    signature, outputs = recognition.signature, [recognition.logits]
    if rule.computed and recognition.scores_signature is not None:
        signature = recognition.scores_signature
        outputs += [recognition.scores[method] for method in rule.computed]

    def read(signature: Signature, limit: int) -> Inputs:
        inputs.update(asked.read(signature, limit))
        for name, rows in inputs.items():
            check_values(name, rows, recognition.range)
        return inputs

    return Predict(
        served.model, served.entry(signature), read, served.version,
        outputs=_wanted(signature, outputs), handicap_s=asked.handicap_s,
    )  # fmt: skip


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
