"""Whether a number on a page is the one that came, as far as it is written out and kernels round alike."""

import json
import re
from typing import Any

NUMBER = re.compile(r"-?\d+\.\d+")
RELATIVE = 1e-4


class Written(float):
    """A number as it stands on a page; it knows how many decimals were written."""

    decimals: int

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.decimals = len(re.split("[eE]", text)[0].partition(".")[2])
        return number

    def is_near(self, came: float) -> bool:
        """Whether the number that came is this one: 1e-4 of it away at most, or half of the last digit written."""
        return abs(self - came) <= max(RELATIVE * abs(came), 0.501 * 10.0**-self.decimals)


def read(shown: str) -> Any:
    """The JSON of a page, with `…` in the place of whatever is left out."""
    return json.loads(re.sub(r'\{…\}|\[…\]|(?<=": )…(?=[,}])', '"…"', shown), parse_float=Written)


def prints(shown: str, printed: str) -> bool:
    """Whether a program printed what is shown: text as it stands, numbers up to rounding, `…` for anything."""
    numbers = [Written(number) for number in NUMBER.findall(shown)]
    text = NUMBER.split(shown.strip())
    pattern = rf"({NUMBER.pattern})".join(".*".join(map(re.escape, part.split("…"))) for part in text)
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    return found is not None and all(map(Written.is_near, numbers, map(float, found.groups())))
