"""Decides what rows are whose answers have come: all of one turn of the loop that go by one rule at once.

A decision costs more by call than by row. It does not know how models are called; the rule is the policy's.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from sluice.gateway.core.pending import BUG, Pending
from sluice.policy.contract import Recognition, Signature
from sluice.policy.errors import Internal, SluiceError
from sluice.policy.recognition import Calibration, Recognized, decide

Array = NDArray[Any]
log = structlog.get_logger()


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
    signature: Signature
    outputs: tuple[str, ...]


class Verdicts(NamedTuple):
    """What came of each row of a request, and by which rule."""

    rule: Rule
    results: Sequence[Recognized]


class Watcher(Protocol):
    """Hears of rows that were recognized; it must be quick and must not raise."""

    def recognized(self, verdicts: Verdicts) -> None: ...


class Answered(NamedTuple):
    """What models said of a request's rows: `logits` and, by method, `scores` `[batch]`; its outcome is `Verdicts`."""

    rule: Rule
    logits: Array
    scores: Mapping[str, Array]
    pending: Pending


class Decisions:
    """Takes what has been answered, and settles it at the end of this turn of the loop."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._waiting: dict[Rule, list[Answered]] = {}

    def add(self, answered: Answered) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._decide_all)
        self._waiting.setdefault(answered.rule, []).append(answered)

    def _decide_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for rule, requests in waiting.items():
            self._decide(rule, [each for each in requests if each.pending.waits])

    def _decide(self, rule: Rule, requests: Sequence[Answered]) -> None:
        if not requests:
            return
        try:
            results = _results(rule, requests)
        except Exception as error:
            if len(requests) == 1:
                requests[0].pending.settle(_told(rule, error))
            else:  # what is wrong with one is not the others' fault
                for each in requests:
                    self._decide(rule, [each])
            return
        self._watcher.recognized(Verdicts(rule, results))
        ends = accumulate((len(each.logits) for each in requests), initial=0)
        for each, (start, end) in zip(requests, pairwise(ends), strict=True):
            each.pending.settle(Verdicts(rule, results[start:end]))


def _results(rule: Rule, requests: Sequence[Answered]) -> list[Recognized]:
    scores = {method: _joined([each.scores[method] for each in requests]) for method in requests[0].scores}
    logits = _joined([each.logits for each in requests])
    about = rule.recognition, rule.calibration, rule.method, rule.level
    return decide(*about, logits, scores, rule.top_k, sets=rule.sets)


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _told(rule: Rule, error: Exception) -> SluiceError:
    if isinstance(error, SluiceError):
        return error
    log.error("rows could not be recognized", model=rule.model, method=rule.method, exc_info=error)
    return Internal(BUG)
