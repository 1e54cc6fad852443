"""Sequences that a model writes: how often they are right, in how many tokens, and how likely the right ones are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.data import Column, Rows
from sluice.evaluator.document import Cell, Metric, Section, Table
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import answered, is_discrete, labels_of, output_of, signature_of, text_of
from sluice.evaluator.tasks.score import score_of
from sluice.evaluator.tasks.task import Asked, Measure, Subject, Values
from sluice.evaluator.tasks.tokens import Tokens, matching, split
from sluice.evaluator.tasks.values import ratio, weighted_mean
from sluice.policy.contract import Signature, Tensor
from sluice.policy.sequences import text_values

_NO_WEIGHT = "no row has a weight"


class Sequences:
    """A signature that gives texts or sequences of whole numbers; perplexity by a signature that scores targets."""

    whole_sessions, stateless = False, ""
    answered, tested = "answer", "correct"

    def __init__(self, subject: Subject, options: Options) -> None:
        self._signature = options.signature
        self._asked = signature_of(subject, options.signature)
        self._output = output_of(self._asked, options, is_discrete, "text or whole numbers").name
        generation = subject.contract.generation if subject.contract else None
        self._tokens = Tokens(generation) if generation else None
        self._score, no_score = score_of(subject, options, self._asked, self._tokens)
        self.judged = "nll_outputs" if self._score else ""
        self.measures: Mapping[str, Measure] = sequence_measures(no_score)

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Nothing: what is judged is known without answers."""

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """answer, as text; correct; tokens that are right and positions of all; nll in nats of so many target tokens.

        Raises:
            BadRequest: a label is not written in the model's tokens, or the score is not as it must be.
        """
        answers = answered(await asked.predict(rows.inputs, [self._output], self._signature), self._output, rows)
        labels = labels_of(rows)
        ours = [split(answer, self._tokens) for answer in answers]
        right = [split(label, self._tokens) for label in labels]
        counts = np.array([matching(*each) for each in zip(ours, right, strict=True)], np.float64).reshape(-1, 2)
        same = [_text(answer) == _text(label) for answer, label in zip(answers, labels, strict=True)]
        targets = await self._score.values(rows, asked) if self._score else _unscored(len(rows))
        return {
            "answer": np.array([*map(_text, answers)], np.str_),
            "correct": np.array(same, bool),
            "right_tokens": counts[:, 0],
            "positions": counts[:, 1],
            "bucket": self._buckets(rows),
            **targets,
        }

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """The metrics by bucket, where the signature has buckets."""
        buckets = values["bucket"]
        found = sorted(set(buckets.tolist()) - {0})
        if not found:
            return ()
        rows = [self._line(str(bucket), values, buckets == bucket) for bucket in found]
        return (
            Table(
                title="Buckets",
                text=f"By the length in {self._asked.ragged_axes[0].name}s to which inputs are padded at most.",
                columns=("bucket", "rows", *self.measures),
                rows=(*rows, self._line("all", values, np.ones(len(buckets), bool))),
            ),
        )

    def notes(self, values: Values) -> Sequence[str]:
        """What perplexity is of."""
        if not self._score:
            return ()
        return ("Perplexity is exp(Σ nll / Σ tokens) over all tokens of the targets, the end tokens among them.",)

    def _line(self, name: str, values: Values, there: NDArray[np.bool_]) -> tuple[Cell, ...]:
        own = {each: array[there] for each, array in values.items()}
        found = [measure.of(own) for measure in self.measures.values()]
        return (name, int(there.sum()), *(value if np.isfinite(value) else None for value in found))

    def _buckets(self, rows: Rows) -> NDArray[np.int64]:
        """The least bound of each row's bucket that is not below its length; 0 where there are no buckets."""
        bounds = self._asked.bounds.get(self._asked.ragged_axes[0].name) if self._asked.ragged_axes else None
        if not bounds:
            return np.zeros(len(rows), np.int64)
        places = np.searchsorted(bounds, lengths_of(self._asked, rows.inputs), side="left")
        return np.array([*bounds, 0], np.int64)[places]


def sequence_measures(no_score: str = "") -> Mapping[str, Measure]:
    """The metrics; `no_score` says why there is no perplexity, if there is none."""
    return {
        "exact_match": Measure(_exact_match, "higher", share=True, undefined=_NO_WEIGHT),
        "token_accuracy": Measure(_token_accuracy, "higher", share=True, undefined=_NO_WEIGHT),
        "perplexity": Measure(perplexity, "lower", undefined=no_score or _NO_WEIGHT),
    }


def lengths_of(signature: Signature, inputs: Mapping[str, Column]) -> list[int]:
    """Each row's length along the first ragged axis."""
    ragged = signature.ragged_axes[0].name
    tensor = next(each for each in signature.inputs.values() if any(axis.name == ragged for axis in each.axes))
    axis = [axis.name for axis in tensor.axes].index(ragged) - 1
    return [_length(row, tensor, axis) for row in inputs[tensor.name]]


def perplexity(values: Values) -> float:
    """exp(Σ w nll / Σ w tokens)."""
    return float(np.exp(ratio(values, "nll", "tokens")))


def _length(row: Any, tensor: Tensor, axis: int) -> int:
    shape = np.shape(row)
    return shape[axis] if shape else len(text_values(text_of(row), tensor))


def _text(value: Any) -> str:
    return " ".join(map(text_of, np.asarray(value).ravel())) if np.ndim(value) else text_of(value)


def _unscored(rows: int) -> Values:
    return {"nll": np.full(rows, np.nan), "tokens": np.full(rows, np.nan)}


def _exact_match(values: Values) -> float:
    return weighted_mean(values["weight"], values["correct"])


def _token_accuracy(values: Values) -> float:
    return ratio(values, "right_tokens", "positions")
