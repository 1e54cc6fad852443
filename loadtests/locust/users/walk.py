"""One session's way through a series. It does not know over what transport."""

import secrets
from dataclasses import dataclass

from loadtests.traffic.steps import Series


def own_id() -> str:
    """An id for a session that no other client has, in whatever process."""
    return f"load-{secrets.token_hex(8)}"


@dataclass(slots=True)
class Walk:
    """A session that is open, and how many steps of its series have been answered; `past` of them come in one scan."""

    session: str
    series: Series
    step: int = 0
    past: int = 0

    @property
    def over(self) -> bool:
        return self.step == len(self.series)
