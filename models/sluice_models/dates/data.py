"""Dates of two centuries as people write them, in many languages, beside ISO 8601; every text has one right reading."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from babel import Locale
from babel.dates import format_date

SEED = 11
FIRST_DAY = date(1900, 1, 1)
DAYS = (date(2100, 1, 1) - FIRST_DAY).days
HELD_OUT_EVERY = 10  # days
TEXTS = {"training": 120_000, "held_out": 10_000}
BYTES_LIMIT = 48

LOCALES = (
    "ca", "cs", "da", "de", "el", "en", "en_GB", "es", "et", "fi", "fr", "hu", "id", "it",
    "ja", "ko", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sv", "tr", "vi", "zh",
)  # fmt: skip
NUMBERS = "und"  # BCP 47's tag where there is no language: numbers alone

_NUMBERS = (
    "y-MM-dd", "yMMdd", "y/MM/dd", "y/M/d", "y.MM.dd", "y M d",
    "dd/MM/y", "d/M/y", "dd.MM.y", "d.M.y", "dd-MM-y", "d-M-y", "d M y", "M/d/y",
)  # fmt: skip
_MONTH_FIRST = "M/d/y"
_WORDS = ("d MMM y", "d MMMM y", "EEE d MMM y")
_MONTHS_ARE_NUMBERS = frozenset({"ja", "ko", "vi", "zh"})
_ENGLISH = (
    "d'{th}' MMMM y", "d'{th} of' MMMM y", "MMMM d'{th}', y", "MMM d y", "d-MMM-y", "y MMM d", "EEE, MMM d, y",
)  # fmt: skip
_SHARE_OF_NUMBERS = 0.2
CASES: tuple[Callable[[str], str], ...] = (str, str, str.lower, str.upper)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """A date as somebody writes it.

    Attributes:
        text: such as "3. März 2024"; 1 to `BYTES_LIMIT` bytes of UTF-8.
        iso: the same date as YYYY-MM-DD.
        locale: Babel's name of the language, `NUMBERS` where there is none.
    """

    text: str
    iso: str
    locale: str


def is_held_out(day: date) -> bool:
    """Every tenth day, so that training sees neither the texts nor the dates that the model is measured on."""
    return (day - FIRST_DAY).days % HELD_OUT_EVERY == 0


def texts(split: str) -> list[Written]:
    """The dates of a split, "training" or "held_out": no text twice, and the same ones at every call."""
    random = np.random.default_rng([SEED, *split.encode()])
    days = [day for day in map(_day, range(DAYS)) if is_held_out(day) == (split == "held_out")]
    different: dict[str, Written] = {}
    while len(different) < TEXTS[split]:
        written = _draw(random, days)
        different.setdefault(written.text, written)
    return list(different.values())


@cache
def patterns(locale: str) -> tuple[str, ...]:
    """The ways to write a date in a language, as Babel's date patterns; years have four digits."""
    if locale == NUMBERS:
        return _NUMBERS
    own = [form.pattern.replace("yy", "y") for form in _language(locale).date_formats.values()]
    words = () if locale in _MONTHS_ARE_NUMBERS else _WORDS
    english = _ENGLISH if locale.startswith("en") else ()
    return tuple(dict.fromkeys([*own, *words, *english]))


def write(day: date, locale: str, pattern: str) -> str | None:
    """The date in one of the language's patterns; None if it would be read as another date.

    Numbers alone are read as year, month, day where the year stands first, and as day, month, year where it stands
    last; so month, day, year is written only where the day cannot be a month.
    """
    if pattern == _MONTH_FIRST and day.day <= 12:
        return None
    return format_date(day, pattern.replace("{th}", _ordinal(day.day)), _language(locale))


def write_csv(out: Path) -> Path:
    """Write both splits to OUT/dates.csv: text, ISO date, split and language."""
    file = Path(out) / "dates.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "iso", "split", "locale"])
        for split in TEXTS:
            rows.writerows([written.text, written.iso, split, written.locale] for written in texts(split))
    return file


@cache
def _language(locale: str) -> Locale:
    return Locale("en") if locale == NUMBERS else Locale.parse(locale)


def _draw(random: np.random.Generator, days: Sequence[date]) -> Written:
    while True:
        day = _pick(random, days)
        locale = NUMBERS if random.random() < _SHARE_OF_NUMBERS else _pick(random, LOCALES)
        text = _pick(random, CASES)(write(day, locale, _pick(random, patterns(locale))) or "")
        if 0 < len(text.encode()) <= BYTES_LIMIT:
            return Written(text, day.isoformat(), locale)


def _pick(random: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(random.integers(len(choices)))]


def _day(index: int) -> date:
    return FIRST_DAY + timedelta(days=index)


def _ordinal(number: int) -> str:
    return "th" if number in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
