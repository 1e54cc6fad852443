"""Quantities with units, as people write them: `50 ms`, `0.1 %`, `200 per second`, `3`."""

import re
from decimal import Decimal
from typing import Literal

Kind = Literal["duration", "share", "rate", "count"]

_NUMBER = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*(.*)")
_UNITS: dict[Kind, dict[str, Decimal]] = {  # decimals, as 0.7 % is not 0.7 * 0.01 in floats
    "duration": {
        "us": Decimal("1e-6"), "µs": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "min": Decimal(60),
        "h": Decimal(3600),
    },
    "share": {"%": Decimal("0.01")},
    "rate": {"per second": Decimal(1), "/s": Decimal(1)},
    "count": {"": Decimal(1)},
}  # fmt: skip
_EXAMPLES: dict[Kind, str] = {
    "duration": "a duration such as 50 ms or 2 s",
    "share": "a share such as 0.1 %",
    "rate": "a rate such as 200 per second",
    "count": "a number such as 3",
}


def quantity(text: object, kind: Kind) -> float:
    """In seconds, as a fraction, per second, or as a number.

    Raises:
        ValueError: it is nothing of this kind; says what is expected and what came.
    """
    found = None if isinstance(text, bool) else _NUMBER.fullmatch(str(text).strip())
    scale = found and _UNITS[kind].get(" ".join(found[2].split()))
    if not found or not scale:
        raise ValueError(f"expected {_EXAMPLES[kind]}, got {str(text)!r:.80}")
    return float(Decimal(found[1].replace(",", "").replace("_", "")) * scale)


def written(value: float, kind: Kind) -> str:
    """As `quantity` reads it, with as many digits as say something."""
    match kind:
        case "duration":
            return f"{value * 1000:,.4g} ms" if value < 1 else f"{value:,.4g} s"
        case "share":
            return f"{value * 100:.3g} %"
        case "rate":
            return f"{value:,.4g} per second"
        case "count":
            return f"{value:,.10g}"
