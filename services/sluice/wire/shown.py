"""How a value that came is shown in a sentence: as JSON, which is how its sender wrote it, and cut off."""

import json
from typing import Any

_LONGEST = 80


def as_json(value: Any) -> str:
    """The beginning of a value's JSON text; halves of surrogate pairs are escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "a value that is nested too deeply"
    return text[:_LONGEST].encode(errors="backslashreplace").decode()
