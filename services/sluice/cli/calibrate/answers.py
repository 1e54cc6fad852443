"""Sends rows through a gateway and collects what a classifier answers: its logits, and its own scores.

It does not know what is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.cli.ask import asking
from sluice.cli.calibrate.fit import Answers
from sluice.cli.errors import CommandError
from sluice.policy.contract import Detector, Recognition, Signature
from sluice.policy.contract_document import ContractError
from sluice.policy.recognition import parts_of
from sluice.policy.scores import detector as detector_score

Array = NDArray[Any]
Told = Callable[[int], None]  # hears of so many rows that are answered

_ROWS, _NUMBERS = 64, 200_000  # of a request, at most: enough that batches are full, and far below its largest body
_WITHIN_S = 60.0
_ATTEMPTS = 1_000  # as many as there is time for: a gateway that is away may be restarting
_OTHERWISE = "`sluice calibrate` sends its rows through the gateway that serves the model"


class NotServed(CommandError):
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
            CommandError: the gateway is not there, refuses, or answers something else.
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
            raise CommandError(
                f"{detector.model}: expected a detector with two logits, known and unknown; its contract has "
                f"{front.recognition.width}"
            )
        logits = front.answers(inputs, (), _nobody).logits
        return detector_score(logits, detector.known)

    def _outputs(
        self, inputs: Mapping[str, Array], signature: Signature, names: Sequence[str], told: Told
    ) -> dict[str, Array]:
        parts: dict[str, list[Array]] = {name: [] for name in names}
        total = len(next(iter(inputs.values())))
        size = max(1, min(_ROWS, _NUMBERS * total // max(1, sum(array.size for array in inputs.values()))))
        with asking(self.url, _OTHERWISE, attempts=_ATTEMPTS, timeout_s=_WITHIN_S) as client:  # rows move no state
            for start in range(0, total, size):
                rows = {name: array[start : start + size] for name, array in inputs.items()}
                answer = client.predict(self.model, rows, names, signature=signature.name, version=self.version)
                count = len(next(iter(rows.values())))
                for name in names:
                    parts[name].append(_checked(answer[name], name, count))
                told(count)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def find(model: str, url: str) -> Recognizer:
    """The newest version of a model that can be called.

    Raises:
        NotServed: there is none.
        CommandError: it has no recognition contract, or no gateway answers.
    """
    with asking(url, _OTHERWISE) as client:
        listed = {each.name: each.versions for each in client.models()}
        if model not in listed:
            raise NotServed(f"{model}: expected a served model, one of {', '.join(listed) or 'none'}")
        available = [each.version for each in listed[model] if each.state == "AVAILABLE"]
        if not available:
            raise NotServed(f"{model}: expected a version that is available; there is none now")
        version = max(available)
        try:
            contract = client.contract(model, version)
        except ContractError as error:
            raise CommandError(f"{model} version {version}: {error}") from None
    if contract is None or contract.recognition is None:
        raise CommandError(
            f"{model} version {version}: expected a contract that names classes; it has none. Export it "
            "with them, in the order of its logits: `sluice export FILE.keras --out DIR/NAME/VERSION --classes A,B,…`"
        )
    return Recognizer(url, model, version, contract.recognition)


def _checked(column: Array, name: str, count: int) -> Array:
    """One output's rows.

    Raises:
        CommandError: there is not one for each row that was sent.
    """
    if column.shape[:1] != (count,):
        raise CommandError(f"expected {count} rows of {name}; got shape {list(column.shape)}")
    return column


def _nobody(_: int) -> None:
    """A detector's rows are the same rows, and counted once."""
