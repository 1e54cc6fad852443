"""What a classifier answers to each row, and what is right: its classes, probabilities and labels.

It does not know metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sluice.data import Rows
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.asking import has_classes, labels_of, output_of, refused, signature_of, text_of
from sluice.evaluator.tasks.task import Array, Subject
from sluice.policy.contract import Recognition, Tensor
from sluice.policy.errors import BadRequest
from sluice.policy.recognition import check_logits, class_logits
from sluice.policy.scores import softmax

LEAST = float(np.finfo(np.float64).eps)  # a probability below it counts as this much, as in scikit-learn's log_loss
_SUMS_TO_1 = 1e-3  # as near to it as probabilities in float16 come
_AS_PLACES = "Of one-hot labels, give the classes' places: `argmax(axis=-1)`."
_AS_COLUMN = "Give a label for each row, not a list: `labels.ravel()`."
_SHOWN = 12  # names of classes, in a refusal


def recognition_of(subject: Subject, signature: str, output: str | None) -> Recognition | None:
    """The contract's recognition, if it says what the judged output of the signature means."""
    contract = subject.contract
    named = contract.recognition if contract else None
    own = contract.signatures.get(signature) if contract else None
    if named is None or own is None or named.logits not in own.outputs or output not in {None, named.logits}:
        return None
    return named


@dataclass(slots=True)
class Classes:
    """The classes of the judged output, and whether that holds probabilities or logits, which its first rows tell."""

    signature: str
    output: Tensor
    named: Sequence[str] | None
    recognition: Recognition | None = None
    probabilities: bool = field(default=False, init=False)

    def see(self, answers: Array) -> None:
        """Take rows as probabilities if all of these, the first ones, are: 0 or more, with a sum of 1.

        Raises:
            BadRequest: they are no rows of classes.
        """
        self.probabilities = bool(self._look_like_probabilities(answers).all())

    def of(self, answers: Array, rows: Rows) -> tuple[Array, Array]:
        """Probabilities and their logarithms, float64 `[rows, class]`, of answers float64 `[rows, class or unit]`.

        Raises:
            BadRequest: they are no rows of classes, or some are probabilities and some are not.
        """
        if self.recognition is not None:
            check_logits(self.recognition, answers)
            return _of_logits(class_logits(self.recognition, answers))
        looks = self._look_like_probabilities(answers)
        # One row of logits or another may look like probabilities by chance, more than half of them do not.
        odd = ~looks if self.probabilities else looks if looks.mean() > 1 / 2 and len(looks) > 2 else np.zeros(0, bool)
        if odd.any():
            row = int(odd.argmax())
            expected = "probabilities" if self.probabilities else "logits"
            raise refused(rows, row, f"{expected}, as other rows have them, in {self.output.name!r}", answers[row])
        if not self.probabilities:
            return _of_logits(answers)
        return answers, np.log(np.clip(answers, LEAST, None))

    def names(self, count: int) -> Sequence[str]:
        """The names of so many classes; without any in the options or the contract, their places.

        Raises:
            BadRequest: there are more or fewer names.
        """
        if self.named is None:
            return [*map(str, range(count))]
        if len(self.named) != count:
            raise BadRequest(
                f"{self.output.name!r} has {count} classes; {len(self.named)} are named: {_listed(self.named)}. Name "
                "them all in `options.classes`."
            )
        return self.named

    def _look_like_probabilities(self, answers: Array) -> NDArray[np.bool_]:
        if answers.ndim != 2 or answers.shape[1] < 2:
            raise BadRequest(
                f"Classification takes an output [rows, class] with a number for each class; {self.output.name!r} came "
                f"as {list(answers.shape)}. Name another in `options.output`, or is the task regression?"
            )
        found: NDArray[np.bool_] = (answers >= 0).all(axis=1) & (np.abs(answers.sum(axis=1) - 1) <= _SUMS_TO_1)
        return found


def classes_of(subject: Subject, options: Options) -> Classes:
    """What of the subject is judged.

    Raises:
        BadRequest: no output, or no one output, is that of a classifier.
    """
    signature = signature_of(subject, options.signature)
    recognition = recognition_of(subject, options.signature, options.output)
    if recognition is not None:
        output = signature.outputs[recognition.logits]
        return Classes(options.signature, output, options.classes or recognition.classes, recognition)
    output = output_of(signature, options, has_classes, "floats [rows, class], one for each class")
    return Classes(options.signature, output, options.classes or _from_meaning(output))


def places_of(rows: Rows, names: Sequence[str], *, none: bool = False) -> NDArray[np.int64]:
    """The labels as places of classes, int64 `[rows]`; with `none`, a row whose label is empty is of no class: -1.

    A label is a class's name, or, unless names are other whole numbers, its place.

    Raises:
        BadRequest: a label is none of these.
    """
    places = {**_by_label(names), **({"": -1} if none else {})}
    found = np.empty(len(rows), np.int64)
    for number, label in enumerate(labels_of(rows)):
        if np.ndim(label) or (place := places.get(text_of(label).strip())) is None:
            by_place = "" if _are_numbers(names) else f", or a place from 0 to {len(names) - 1}"
            expected = f"a label that is one of the classes {_listed(names)}{by_place}"
            advice = "" if not np.ndim(label) else _AS_PLACES if np.size(label) > 1 else _AS_COLUMN
            raise refused(rows, number, expected, label, advice)
        found[number] = place
    return found


def _by_label(names: Sequence[str]) -> Mapping[str, int]:
    by_name = {name: place for place, name in enumerate(names)}
    return by_name if _are_numbers(names) else {str(place): place for place in range(len(names))} | by_name


def _are_numbers(names: Sequence[str]) -> bool:
    return any(name.removeprefix("-").isdecimal() for name in names)


def _of_logits(logits: Array) -> tuple[Array, Array]:
    logarithms = logits - np.logaddexp.reduce(logits, axis=1)[:, np.newaxis]
    return softmax(logits), logarithms


def _from_meaning(output: Tensor) -> Sequence[str] | None:
    """The names that the class axis's meaning lists, if it lists as many as there are."""
    axis = output.axes[-1] if output.axes else None
    names = [name.strip() for name in axis.meaning.split(",")] if axis else []
    return names if axis and len(names) == axis.size == len(set(names)) and all(names) else None


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
