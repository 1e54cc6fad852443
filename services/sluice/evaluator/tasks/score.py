"""How likely a model finds the right sequences: by a signature that takes sources and targets, and scores each token.

It does not know metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.data import Column, Rows
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import answered, is_float, labels_of, refused, text_of
from sluice.evaluator.tasks.task import Array, Asked, Subject, Values
from sluice.evaluator.tasks.tokens import Tokens
from sluice.evaluator.tasks.values import padded_rows
from sluice.policy.contract import Signature

_LEAST = float(np.finfo(np.float32).min)  # in place of the logarithm of 0, where answers are compared


@dataclass(frozen=True, slots=True)
class Score:
    """A signature with the sources' inputs, `target`: each row's token numbers, and `output`: their log-probabilities.

    The target's tokens are those of `tokens`, with the end token last, or the label's own numbers.
    """

    signature: str
    target: str
    output: str
    tokens: Tokens | None

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """nll: -Σ of the targets' log-probabilities in nats; tokens: how many there are; float64 `[rows]`.

        Raises:
            BadRequest: a label is not written in the model's tokens, or an answer is shorter than its target.
        """
        targets = [self._target(rows, number, label) for number, label in enumerate(labels_of(rows))]
        found = await asked.predict({**rows.inputs, self.target: _column(targets)}, [self.output], self.signature)
        given = [np.asarray(row, np.float64).ravel() for row in answered(found, self.output, rows)]
        own = [self._of(rows, number, row, len(target)) for number, (row, target)
               in enumerate(zip(given, targets, strict=True))]  # fmt: skip
        return {
            "nll": np.array([0.0 - each.sum() for each in own]),
            "tokens": np.array([float(len(each)) for each in own]),
            "nll_outputs": np.nan_to_num(padded_rows(own), neginf=_LEAST).astype(np.float32),
        }

    def _of(self, rows: Rows, number: int, row: Array, length: int) -> Array:
        if len(row) < length or np.isnan(row[:length]).any():
            expected = f"a log-probability in {self.output!r} for each of {length} tokens"
            raise refused(rows, number, expected, row.tolist())
        return row[:length]

    def _target(self, rows: Rows, number: int, label: Any) -> NDArray[np.int32]:
        if np.ndim(label):
            return np.asarray(label, np.int32)
        ids = self.tokens.ids(text_of(label)) if self.tokens else None
        if ids is None:
            raise refused(rows, number, "a label that is written in the tokens of `generation`", label)
        return ids


def score_of(
    subject: Subject, options: Options, source: Signature, tokens: Tokens | None
) -> tuple[Score | None, str]:  # fmt: skip
    """What scores targets, or why nothing does."""
    contract = subject.contract
    signature = contract.signatures.get(options.score) if contract else None
    if signature is None:
        return None, f"the model has no signature {options.score!r} that gives targets' log-probabilities"
    targets = [name for name in signature.inputs if name not in source.inputs]
    outputs = [name for name, tensor in signature.outputs.items() if is_float(tensor) and len(tensor.axes) == 2]
    if len(targets) != 1 or len(outputs) != 1 or len(signature.inputs) != len(source.inputs) + 1:
        return None, (
            f"the signature {options.score!r} is not one with the inputs of {options.signature!r}, a target, and one "
            "output of log-probabilities"
        )
    return Score(options.score, targets[0], outputs[0], tokens), ""


def _column(targets: Sequence[NDArray[np.int32]]) -> Column:
    return np.stack(targets) if len({len(target) for target in targets}) == 1 else [*targets]
