"""Decides what rows are whose answers have come: all of one turn of the loop that go by one rule at once.

A decision costs more by call than by row. It does not know how models are called; the rule is the policy's.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from sluice.policy.contract import Recognition, Signature
from sluice.policy.errors import Internal, SluiceError
from sluice.policy.plausibility import check_values
from sluice.policy.recognition import Calibration, Recognized, decide

Array = NDArray[Any]
log = structlog.get_logger()

_BUG = "Something went wrong inside the gateway; it has been logged."


@dataclass(frozen=True, eq=False)
class Rule:
    """By what the rows of a request are decided, equal to itself only, and what the model is asked for that.

    `signature` and `outputs` are as `Predict` takes them. `parts` are the methods that `method` consists of, and
    `computed` those of them whose scores the model itself gives. `threshold` is None where rows do not share one.
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
    parts: tuple[str, ...]
    computed: tuple[str, ...]
    signature: str
    outputs: tuple[str, ...]


class Verdicts(NamedTuple):
    """What came of each row of a request, and by which rule."""

    rule: Rule
    results: Sequence[Recognized]


class Watcher(Protocol):
    """Hears of rows that were recognized; it must be quick and must not raise."""

    def recognized(self, verdicts: Verdicts) -> None: ...


Read = Callable[[Signature, int], Mapping[str, Array]]
Done = Callable[[Verdicts | SluiceError], None]


class RecognizeCall:
    """The rows of one request, and what models said of them: `logits` and, by method, `scores` `[batch]`.

    `inputs` are there once they have been read, and `stop`, which withdraws the calls, once these have begun.
    """

    __slots__ = ("_done", "_read", "inputs", "logits", "rule", "scores", "stop")

    inputs: Mapping[str, Array]
    logits: Array
    scores: Mapping[str, Array]
    stop: Callable[[], None]

    def __init__(self, rule: Rule, read: Read, done: Done) -> None:
        self.rule = rule
        self._read = read
        self._done: Done | None = done

    @property
    def withdrawn(self) -> bool:
        return self._done is None

    def read(self, signature: Signature, limit: int) -> Mapping[str, Array]:
        """The inputs, for `Predict.read`.

        Raises:
            InputNotFinite, BadRequest: they cannot be meant; and what reading them raises.
        """
        self.inputs = self._read(signature, limit)
        for name, rows in self.inputs.items():
            check_values(name, rows, self.rule.recognition.range)
        return self.inputs

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        stop, self._done, self.stop = self.stop, None, _nothing
        stop()

    def end(self, outcome: Verdicts | SluiceError) -> None:
        """Tell whoever waits, once; trouble with one client's answer is not the others'."""
        done, self._done, self.stop = self._done, None, _nothing  # what stops the calls knows this case in its turn
        if done is None:
            return
        try:
            done(outcome)
        except Exception:
            log.exception("an answer could not be given")
            if not isinstance(outcome, SluiceError):
                done(Internal(_BUG))


class Decisions:
    """Takes cases, and ends them at the end of this turn of the loop."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._waiting: dict[Rule, list[RecognizeCall]] = {}

    def add(self, case: RecognizeCall) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._decide_all)
        self._waiting.setdefault(case.rule, []).append(case)

    def _decide_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for rule, cases in waiting.items():
            self._decide(rule, [case for case in cases if not case.withdrawn])

    def _decide(self, rule: Rule, cases: Sequence[RecognizeCall]) -> None:
        if not cases:
            return
        try:
            results = _results(rule, cases)
        except Exception as error:
            if len(cases) == 1:
                cases[0].end(_told(rule, error))
            else:  # what is wrong with one is not the others' fault
                for case in cases:
                    self._decide(rule, [case])
            return
        self._watcher.recognized(Verdicts(rule, results))
        ends = accumulate((len(case.logits) for case in cases), initial=0)
        for case, (start, end) in zip(cases, pairwise(ends), strict=True):
            case.end(Verdicts(rule, results[start:end]))


def _nothing() -> None:
    """Stop calls that have ended."""


def _results(rule: Rule, cases: Sequence[RecognizeCall]) -> list[Recognized]:
    scores = {method: _joined([case.scores[method] for case in cases]) for method in cases[0].scores}
    logits = _joined([case.logits for case in cases])
    about = rule.recognition, rule.calibration, rule.method, rule.level
    return decide(*about, logits, scores, rule.top_k, sets=rule.sets)


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _told(rule: Rule, error: Exception) -> SluiceError:
    if isinstance(error, SluiceError):
        return error
    log.error("rows could not be recognized", model=rule.model, method=rule.method, exc_info=error)
    return Internal(_BUG)
