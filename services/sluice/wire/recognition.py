"""`:recognize`'s JSON: the fields of a request, and the body of an answer.

It does not know HTTP, models, or how it is decided what is known.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from sluice.policy.errors import BadRequest, MissingInput
from sluice.policy.recognition import Recognized
from sluice.wire.rest import DEFAULT_SIGNATURE, PredictBody, has_words, parse_json
from sluice.wire.shown import as_json

TOP_K = 3
_FIELDS = ("instances", "method", "level", "top_k", "sets")


class RecognizeBody(NamedTuple):
    """A recognize request as written; `null` is as good as nothing, for `method` and `level` the calibration's."""

    rows: PredictBody
    method: str | None
    level: float | None
    top_k: int
    sets: bool


def parse_recognize(body: bytes) -> RecognizeBody:
    """The fields of a recognize request.

    Raises:
        BadRequest, MissingInput: what is wrong with them.
    """
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest('The body is an object with "instances", the rows to recognize.')
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise BadRequest(f"Unknown fields: {', '.join(f'{name!r:.80}' for name in unknown)}. There are {_LISTED}.")
    if "instances" not in fields:
        raise MissingInput('The body must have "instances", the rows to recognize.')
    method, level = fields.get("method"), fields.get("level")
    if not isinstance(method, str | None):
        raise BadRequest(f'"method" is a method\'s name; got {as_json(method)}.')
    if level is not None and type(level) not in (int, float):
        raise BadRequest(f'"level" is a number between 0 and 1; got {as_json(level)}.')
    top_k, sets = fields.get("top_k"), fields.get("sets")
    if top_k is None:
        top_k = TOP_K
    if type(top_k) is not int:
        raise BadRequest(f'"top_k" is how many candidates to give, a whole number; got {as_json(top_k)}.')
    if not isinstance(sets, bool | None):
        raise BadRequest(f'"sets" is true or false; got {as_json(sets)}.')
    words = has_words(body, expected=sets is not None)
    rows = PredictBody(DEFAULT_SIGNATURE, row_format=True, value=fields["instances"], has_words=words)
    return RecognizeBody(rows, method, level, top_k, bool(sets))


_LISTED = ", ".join(_FIELDS)


def encode_recognized(
    model: str, version: int, method: str, level: float, threshold: float | None, results: Sequence[Recognized]
) -> bytes:
    """An answer's body. Where there is no `threshold` that all rows share, each result has its own."""
    written = [_result(result) for result in results]
    if threshold is None:
        written = [{**said, "threshold": each.threshold} for said, each in zip(written, results, strict=True)]
    about = {"model": model, "version": str(version), "method": method, "level": level, "threshold": threshold}
    return orjson.dumps({**about, "results": written})


def _result(result: Recognized) -> dict[str, Any]:
    said: dict[str, Any] = {
        "label": result.label,
        "known": result.known,
        "closed_set_label": result.closed_set_label,
        "score": result.score,
        "p_value": result.p_value,
        "reason": result.reason,
        "candidates": [{"label": label, "probability": probability} for label, probability in result.candidates],
    }
    return said if result.set is None else said | {"set": result.set}
