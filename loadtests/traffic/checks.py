"""Compares answers with what Keras says alone. It does not know who asked, nor how the answer came."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from loadtests.traffic.exchange import WrongAnswer
from loadtests.traffic.models import CLASSES, FORECAST

TOLERANCE = 1e-4  # relative to max(1, |y|): batches of another shape round differently
_TOLD = 200  # characters of an answer that an error shows

Array = NDArray[Any]


def check_numbers(what: str, expected: Array, got: ArrayLike) -> None:
    """Raises: WrongAnswer: the shape is another, or some number is off by more than the tolerance."""
    came = np.asarray(got, np.float64)  # null is not a number
    if came.shape != expected.shape:
        raise WrongAnswer(f"{what}: expected the shape {[*expected.shape]}, got {[*came.shape]}")
    error = np.abs(came - expected) / np.maximum(1.0, np.abs(expected))
    if not (error <= TOLERANCE).all():
        worst = np.unravel_index(np.nan_to_num(error, nan=np.inf).argmax(), error.shape)
        place = f" at {[*map(int, worst)]}" if worst else ""
        raise WrongAnswer(f"{what}{place}: Keras says {expected[worst]:.7g}, got {came[worst]:.7g}")


def check_predictions(expected: Sequence[Array], body: bytes) -> None:
    """The answer to `:predict`: an array for each instance, as long as the instance is.

    Raises:
        WrongAnswer: it is not what Keras says.
    """
    with _read(body) as answer:
        for i, (array, got) in enumerate(_pairs(expected, answer["predictions"])):
            check_numbers(f"prediction {i}", array, got)


@dataclass(frozen=True, slots=True)
class Recognizable:
    """What Keras says of pictures: the logits of the classes `[picture, class]`, and scores by `method` `[picture]`."""

    method: str
    logits: Array
    scores: Array


def check_recognized(expected: Recognizable, body: bytes) -> None:
    """The answer to `:recognize`: each picture's class, how strange it is, and on which side of the threshold.

    What is nearer to the threshold, or to another class, than the tolerance may be on either side.

    Raises:
        WrongAnswer: it is not what follows from Keras' logits and the answer's own threshold.
    """
    with _read(body) as answer:
        _check_equal("method", expected.method, answer["method"])
        threshold = float(answer["threshold"])
        rows = _pairs(list(zip(expected.logits, expected.scores, strict=True)), answer["results"])
        for i, ((logits, score), got) in enumerate(rows):
            closest = got["closed_set_label"]
            if closest not in CLASSES or not _near(logits[CLASSES.index(closest)], logits.max()):
                likeliest = CLASSES[logits.argmax()]
                raise WrongAnswer(f"class of picture {i}: Keras says {likeliest!r}, got {closest!r}")
            check_numbers(f"score of picture {i}", score, got["score"])
            known = got["known"] if _near(score, threshold) else bool(score <= threshold)
            side = f"picture {i}, whose score by Keras is {score:.7g}, known below {threshold:.7g}"
            _check_equal(side, (known, closest if known else None), (got["known"], got["label"]))


def check_generated(expected: Sequence[Mapping[str, Any]], body: bytes) -> None:
    """The answer to `:generate`: for each instance `text`, `steps` and `finished`, and `score` within the tolerance.

    Raises:
        WrongAnswer: it is not what Keras generates.
    """
    with _read(body) as answer:
        for i, (result, got) in enumerate(_pairs(expected, answer["results"])):
            for field in ("text", "steps", "finished"):
                _check_equal(f"{field} of instance {i}", result[field], got[field])
            check_numbers(f"score of instance {i}", np.array(result["score"]), got["score"])


def check_forecast(expected: Array, step: int, body: bytes) -> None:
    """The answer to a step or a scan: the forecast, `[1]` or `[time, 1]`, and the session's number after it.

    Raises:
        WrongAnswer: it is not what Keras says after all steps so far.
    """
    with _read(body) as answer:
        _check_equal("the session's number", step, answer["step"])
        check_numbers(f"forecast before step {step}", expected, answer["outputs"][FORECAST])


def check_opened(session: str | None, step: int, body: bytes) -> None:
    """The answer to opening or forking a session; `session` is None where the gateway chooses the id.

    Raises:
        WrongAnswer: it is another session, or at another step.
    """
    with _read(body) as answer:
        _check_equal("the session", session or answer["session"], answer["session"])
        _check_equal("the session's number", step, answer["step"])


def check_nothing(body: bytes) -> None:
    """The answer to closing a session.

    Raises:
        WrongAnswer: it has a body.
    """
    if body:
        raise WrongAnswer(f"expected no body, got {body[:_TOLD]!r}")


def check_started(field: str, body: bytes) -> None:
    """The answer that gives the id of what was begun.

    Raises:
        WrongAnswer: it gives none.
    """
    with _read(body) as answer:
        if not isinstance(answer[field], str):
            raise WrongAnswer(f"{field}: expected an id, got {answer[field]!r:.80}")


def check_evaluation(metrics: Mapping[str, float], body: bytes) -> None:
    """How far an evaluation is, with its metrics when it is done.

    Raises:
        WrongAnswer: it has failed, or a metric is not that of Keras.
    """
    with _read(body) as answer:
        if answer["status"] in {"failed", "cancelled"}:
            raise WrongAnswer(f"expected an evaluation to end, got {answer['status']!r}: {answer.get('reason')}")
        if answer["status"] == "done":
            for name, value in metrics.items():
                check_numbers(name, np.array(value), answer["metrics"][name]["value"])


def text_of(body: bytes, field: str) -> str:
    """What a right answer says in a field."""
    return str(orjson.loads(body)[field])


@contextmanager
def _read(body: bytes) -> Iterator[Any]:
    """The JSON in a body; what is missing in it, or of another type, is a wrong answer."""
    try:
        yield orjson.loads(body)
    except (LookupError, TypeError, ValueError) as error:
        raise WrongAnswer(f"expected an answer of another form ({error!r}), got {body[:_TOLD]!r}") from None


def _pairs(expected: Sequence[Any], got: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    if len(got) != len(expected):
        raise WrongAnswer(f"expected {len(expected)} results, one for each instance, got {len(got)}")
    return zip(expected, got, strict=True)


def _check_equal(what: str, expected: object, got: object) -> None:
    if got != expected:
        raise WrongAnswer(f"{what}: expected {expected!r}, got {got!r}")


def _near(one: float, other: float) -> bool:
    return bool(abs(one - other) <= TOLERANCE * max(1.0, abs(other)))
