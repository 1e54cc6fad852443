"""What is wrong with the fields of a request, in words; of one that there is not, which one is meant."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from sluice.evaluator.spec import SHA256, Spec
from sluice.wire.answers import what_is_wrong

NEXT = "^[0-9]{1,9}$"
_IN_WORDS = {NEXT: "the `next` of the list before, a whole number", SHA256: "64 hexadecimal digits"}


def what_is_wrong_with(error: Mapping[str, Any]) -> str:
    """A sentence, without its end, about one field; `error` is pydantic's."""
    if error["type"] != "extra_forbidden":
        return what_is_wrong(error, _IN_WORDS)
    *above, name = error["loc"][1:]
    known = _fields_of(above)
    close = get_close_matches(str(name), known, 1)
    where = f" in {'.'.join(map(str, above))}" if above else ""
    meant = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
    return f"there is no field {str(name)!r:.80}{where}; {meant}"


def _fields_of(path: Sequence[Any]) -> Sequence[str]:
    model: type[BaseModel] = Spec
    for name in path:
        kind = model.model_fields[name].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        model = kind
    return [*model.model_fields]
