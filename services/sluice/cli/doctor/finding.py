"""What the doctor finds: one line each."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warn", "FAIL", "-"]


class Finding(NamedTuple):
    """What was found about something: it is well, should be known, must be mended, or could not be tried ("-")."""

    level: Level
    about: str
    words: str

    def __str__(self) -> str:
        return f"{self.level:5} {self.about:12} {self.words}"
