"""Sends rows through a gateway and collects what a classifier answers: its logits, and its own scores.

It does not know what is made of them.
"""

import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from sluice.cli.calibrate.fit import Answers
from sluice.cli.explain.command import NotNow, get
from sluice.cli.explain.explanation import CannotExplain
from sluice.policy.contract import Detector, Recognition, Signature, numpy_dtype
from sluice.policy.contract_document import ContractError, parse_contract
from sluice.policy.recognition import parts_of
from sluice.policy.scores import detector as detector_score

Array = NDArray[Any]
Told = Callable[[int], None]  # hears of so many rows that are answered

_ROWS, _NUMBERS = 64, 200_000  # of a request, at most: enough that batches are full, and far below its largest body
_WITHIN_S = 60.0
_PATIENCE_S = 60.0  # for which rows are sent again to a gateway that is busy or away: it may be restarting
_BACKOFF = wait_random_exponential(multiplier=0.1, max=5.0)
_OTHERWISE = "`sluice calibrate` sends its rows through the gateway that serves the model"


class NotServed(CannotExplain):
    """The gateway has no such model, or no version of it that can be called."""


@dataclass(frozen=True, slots=True)
class Recognizer:
    """One served version of a classifier that can answer "unknown"."""

    url: str
    model: str
    version: int
    recognition: Recognition

    def answers(self, inputs: Mapping[str, Array], methods: Sequence[str], told: Told) -> Answers:
        """What it answers to rows, input name → `[row, ...]`; the scores are those that the `methods` need.

        Raises:
            CannotExplain: the gateway is not there, refuses, or answers something else.
        """
        named, parts = self.recognition, {part for method in methods for part in parts_of(method)}
        own = {method: output for method, output in named.scores.items() if method in parts}
        signature = named.scores_signature if own and named.scores_signature is not None else named.signature
        found = self._outputs(inputs, signature, (named.logits, *own.values()), told)
        scores = {method: found[output] for method, output in own.items()}
        if named.detector is not None and "detector" in parts:
            scores["detector"] = self._detected(named.detector, inputs)
        return Answers(found[named.logits], scores)

    def lacks_detector(self) -> str:
        """Why the detector that the contract names cannot be asked; empty if it can, or if there is none."""
        try:
            if self.recognition.detector is not None:
                find(self.recognition.detector.model, self.url)
        except NotServed as error:
            return f"Its model is not served; {error}"
        return ""

    def _detected(self, detector: Detector, inputs: Mapping[str, Array]) -> Array:
        front = find(detector.model, self.url)
        if front.recognition.width != 2:
            raise CannotExplain(
                f"{detector.model}: expected a detector with two logits, known and unknown; its contract has "
                f"{front.recognition.width}"
            )
        logits = front.answers(inputs, (), _nobody).logits
        return detector_score(logits, detector.known)

    def _outputs(
        self, inputs: Mapping[str, Array], signature: Signature, names: Sequence[str], told: Told
    ) -> dict[str, Array]:
        address = f"{_model(self.url, self.model)}/versions/{self.version}:predict"
        parts: dict[str, list[Array]] = {name: [] for name in names}
        total = len(next(iter(inputs.values())))
        size = max(1, min(_ROWS, _NUMBERS * total // max(1, sum(array.size for array in inputs.values()))))
        for start in range(0, total, size):
            rows = {name: np.ascontiguousarray(array[start : start + size]) for name, array in inputs.items()}
            request = {"signature_name": signature.name, "inputs": rows}
            body = orjson.dumps(request, default=_written, option=orjson.OPT_SERIALIZE_NUMPY)
            answer = self._persistently(address, body)
            count = len(next(iter(rows.values())))
            for name in names:
                parts[name].append(_output(answer, name, signature, count, address))
            told(count)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _persistently(self, address: str, body: bytes) -> Any:
        """The answer to rows, which move no state and so can be sent again.

        Raises:
            CannotExplain: the gateway refuses, or was busy or away for too long.
        """
        retrying = Retrying(
            stop=stop_before_delay(_PATIENCE_S), wait=_wait_s, retry=retry_if_exception_type(NotNow), reraise=True
        )
        try:
            return retrying(get, address, _OTHERWISE, body, _WITHIN_S)
        except NotNow as error:
            sentence = f"rows cannot be answered within {_PATIENCE_S:g} s: {error}"
            raise CannotExplain(sentence, error.code) from None


def _wait_s(state: RetryCallState) -> float:
    """As long as the gateway says; else longer after each attempt."""
    error = state.outcome.exception() if state.outcome else None
    told: int | None = getattr(error, "retry_after_s", None)
    return _BACKOFF(state) if told is None else told


def find(model: str, url: str) -> Recognizer:
    """The newest version of a model that can be called.

    Raises:
        NotServed: there is none.
        CannotExplain: it has no recognition contract, or no gateway answers.
    """
    listed = get(f"{url}/v1/models", _OTHERWISE)
    try:
        states = {
            each["name"]: {int(one["version"]): one["state"] for one in each["versions"]} for each in listed["models"]
        }
    except (KeyError, TypeError, ValueError):
        raise CannotExplain(f"{url}/v1/models: expected a gateway's list of models; got another answer") from None
    if model not in states:
        raise NotServed(f"{model}: expected a served model, one of {', '.join(states) or 'none'}")
    available = [version for version, state in states[model].items() if state == "AVAILABLE"]
    if not available:
        raise NotServed(f"{model}: expected a version that is available; there is none now")
    address = f"{_model(url, model)}/contract?version={max(available)}"
    answer = get(address, _OTHERWISE)
    document = answer.get("contract") if isinstance(answer, dict) else None
    try:
        contract = parse_contract(document) if document is not None else None
    except ContractError as error:
        raise CannotExplain(f"{address}: {error}") from None
    if contract is None or contract.recognition is None:
        raise CannotExplain(
            f'{model}: expected a contract with "recognition", which says what its logits mean (docs/recognition.md); '
            "it has none"
        )
    return Recognizer(url, model, max(available), contract.recognition)


def _model(url: str, model: str) -> str:
    return f"{url}/v1/models/{urllib.parse.quote(model, safe='')}"


def _written(value: Any) -> Any:
    """What JSON makes of arrays of bytes, and of bytes: text."""
    return value.decode() if isinstance(value, bytes) else value.tolist()


def _output(answer: Any, name: str, signature: Signature, count: int, address: str) -> Array:
    """One output's rows; TensorFlow Serving leaves out the name of an only output."""
    try:
        found = answer["outputs"]
        column = np.array(found[name] if len(signature.outputs) > 1 else found, np.float64)
    except (KeyError, TypeError, ValueError):
        raise CannotExplain(f"{address}: expected the output {name}, numbers row by row; got another answer") from None
    if column.ndim == 0 or len(column) != count:
        raise CannotExplain(f"{address}: expected {count} rows of {name}; got shape {list(column.shape)}")
    with np.errstate(over="ignore"):  # infinity is refused with all that is not finite
        return column.astype(numpy_dtype(signature.outputs[name].dtype))


def _nobody(_: int) -> None:
    """A detector's rows are the same rows, and counted once."""
