"""Conditions under which an evaluation fails, such as `accuracy < 0.97` and `accuracy drops > 0.5pt vs 3`.

    METRIC (< | <= | > | >= | ==) NUMBER[% | pt]
    METRIC (drops | rises) (> | >=) NUMBER[% | pt] vs VERSION

It does not know how metrics were found. They are read by this grammar, and nothing is evaluated. After a comparison,
`%` and `pt` are hundredths. After `drops` and `rises`, `pt` are hundredths of the metric's own scale (percentage
points), and `%` are hundredths of the other version's value.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from sluice.evaluator.document import Comparison, Gate, Metric
from sluice.policy.errors import BadRequest

Unit = Literal["", "%", "pt"]

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
                    r"|[+-]?\.[0-9]+(?:[eE][+-]?[0-9]+)?)|(?P<sign><=|>=|==|<|>|%))")  # fmt: skip
_FORMS = (
    "`METRIC < NUMBER` (or <=, >, >=, ==) or `METRIC drops > NUMBER vs VERSION` (or rises; >=), a number with % or pt"
)
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip
_CHANGES = {"drops": -1, "rises": 1}
_SAME = 1e-12  # relative; decimals that are as long as people write them are that near to what they mean


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; of a change, `version` is the other version and `direction` 1 if the metric rises, -1 if not."""

    text: str
    metric: str
    sign: str
    number: float
    unit: Unit = ""
    direction: int = 0
    version: int | None = None

    def judged(self, metrics: Mapping[str, Metric], comparison: Comparison | None) -> Gate:
        """What was found, and whether the evaluation fails; it does where the condition cannot be told."""
        if self.version is None:
            metric = metrics[self.metric]
            return self._gate(metric, metric.value, self.number / (100 if self.unit else 1), "")
        if comparison is None or comparison.version != self.version:
            return Gate(text=self.text, found=f"no comparison with version {self.version}", failed=True)
        difference, value = comparison.differences[self.metric], metrics[self.metric].value
        if difference.value is None or value is None:
            return self._gate(difference, None, 0.0, "")
        bound = self.number / 100 if self.unit == "pt" else self.number
        if self.unit == "%":
            bound *= abs(value - difference.value) / 100
        return self._gate(difference, self.direction * difference.value, bound, f" against version {self.version}")

    def _gate(self, metric: Metric, value: float | None, bound: float, against: str) -> Gate:
        if value is None:
            return Gate(text=self.text, found=metric.note or "undefined", failed=True)
        told = f"changes by {value * self.direction:.6g}" if self.direction else f"is {value:.6g}"
        found = f"{self.metric} {told}{against}"
        return Gate(text=self.text, found=found, failed=_holds(self.sign, value, bound))


def parse(texts: Iterable[str], metrics: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions, of these metrics.

    Raises:
        BadRequest: a text is no condition, or of another metric; says which one may be meant.
    """
    known = tuple(metrics)
    return tuple(_parsed(text, known) for text in texts)


def version_compared(conditions: Iterable[Condition], compare_to: int | None) -> int | None:
    """The version to compare with: what is asked for, or else the one that conditions name.

    Raises:
        BadRequest: they are several.
    """
    named = {condition.version for condition in conditions} - {None} | {compare_to} - {None}
    if len(named) > 1:
        listed = ", ".join(map(str, sorted(version for version in named if version is not None)))
        raise BadRequest(f"One evaluation compares with one version; `compare_to` and `fail_if` name {listed}.")
    return next(iter(named), None)


def check_metric(name: str, known: Iterable[str]) -> None:
    """Raises: BadRequest: the task has no such metric."""
    names = tuple(known)
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise BadRequest(f"Expected a metric of the task, one of {', '.join(names)}; got {name!r:.80}{hint}")


def _parsed(text: str, known: tuple[str, ...]) -> Condition:
    kinds, tokens = _tokens(text)
    match kinds:
        case ("word", "sign", "number", *_) if tokens[1] in _SIGNS and _is_unit(tokens[3:]):
            condition = Condition(text, tokens[0], tokens[1], _number(text, tokens[2]), _unit(tokens[3:]))
        case ("word", "word", "sign", "number", *_, "word", "number") if (
            tokens[1] in _CHANGES and tokens[2] in {">", ">="} and tokens[-2] == "vs" and _is_version(tokens[-1])
            and _is_unit(tokens[4:-2])
        ):  # fmt: skip
            number, direction = _number(text, tokens[3]), _CHANGES[tokens[1]]
            condition = Condition(
                text, tokens[0], tokens[2], number, _unit(tokens[4:-2]), direction, int(tokens[-1])
            )  # fmt: skip
        case _:
            raise _refused(text)
    check_metric(condition.metric, known)
    return condition


def _tokens(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds of the tokens, and the tokens."""
    kinds, tokens, place = [], [], 0
    written = text.rstrip()
    while place < len(written):
        found = _TOKEN.match(written, place)
        if found is None or found.lastgroup is None:
            raise _refused(text)
        kinds.append(found.lastgroup)
        tokens.append(found[found.lastgroup])
        place = found.end()
    return tuple(kinds), tuple(tokens)


def _is_version(token: str) -> bool:
    return token.isdecimal() and float(token) < 2**63


def _is_unit(tokens: tuple[str, ...]) -> bool:
    return tokens in {(), ("%",), ("pt",)}


def _unit(tokens: tuple[str, ...]) -> Unit:
    return "" if not tokens else "%" if tokens[0] == "%" else "pt"


def _number(text: str, written: str) -> float:
    number = float(written)
    if abs(number) == float("inf"):
        raise _refused(text)
    return number


def _refused(text: str) -> BadRequest:
    return BadRequest(f"A condition of `fail_if` is {_FORMS}; got {text!r:.80}.")


def _holds(sign: str, value: float, bound: float) -> bool:
    same = abs(value - bound) <= _SAME * max(1.0, abs(bound))
    return "=" in sign if same else _SIGNS[sign](value, bound)
