"""Writes a document's numbers for people: percent where they are shares, as many digits as say something."""

from sluice.evaluator.document import Cell, Metric

NOTHING = "—"
_DIGITS = 4
_EXACT_FROM, _EXACT_TO = 1e-4, 1e6  # outside of these, powers of ten


def value(number: Cell, *, share: bool = False, digits: int = _DIGITS) -> str:
    """A cell of a table: texts as they are, whole numbers whole, others with so many significant digits."""
    if number is None:
        return NOTHING
    if isinstance(number, bool):
        return "yes" if number else "no"
    if isinstance(number, str):
        return number
    if share:
        return f"{_plain(100 * number, digits)} %"
    return f"{number:,}" if isinstance(number, int) else _plain(number, digits)


def metric(found: Metric) -> str:
    text = value(found.value, share=found.share)
    return f"{text} {found.unit}" if found.unit and found.value is not None else text


def interval(found: Metric) -> str:
    """The bounds of the confidence interval; empty without one."""
    if found.low is None or found.high is None:
        return ""
    return f"{value(found.low, share=found.share)} … {value(found.high, share=found.share)}"


def change(found: Metric) -> str:
    """A difference, with its sign; of shares in percentage points."""
    if found.value is None:
        return NOTHING
    size = f"{_plain(100 * abs(found.value))} pt" if found.share else _plain(abs(found.value))
    return f"{'-' if found.value < 0 else '+'}{size}"


def change_interval(found: Metric) -> str:
    if found.low is None or found.high is None:
        return ""
    unit = 100 if found.share else 1
    return f"{_plain(unit * found.low)} … {_plain(unit * found.high)}{' pt' if found.share else ''}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def words(name: str) -> str:
    """A metric's name as people write it."""
    return name.replace("_", " ")


def _plain(number: float, digits: int = _DIGITS) -> str:
    if number == 0:
        return "0"
    if _EXACT_FROM <= abs(number) < _EXACT_TO:
        text = f"{number:.{digits}g}"
        return f"{number:,.0f}" if "e" in text or abs(number) >= 10**digits else text
    return f"{number:.2e}"
