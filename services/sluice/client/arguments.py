"""Whether names, numbers and outputs that a caller gives beside the values are such; says so in Python's words."""

from collections.abc import Sequence
from numbers import Integral, Real

from sluice.policy.errors import BadRequest


def check_name(what: str, name: object) -> None:
    """Raises: ValueError: the name of `what` is no text, or empty."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} is named by text of one character or more; got {name!r:.80}.")


def check_number(what: str, value: object, unit: str = "") -> None:
    """Raises: BadRequest: `what` is given, and no number."""
    if value is not None and not isinstance(value, Real):
        raise BadRequest(f"{what} is a number{unit}; got {value!r:.80}.")


def check_whole(what: str, value: object) -> None:
    """Raises: BadRequest: `what` is given, and no whole number."""
    if value is not None and not isinstance(value, Integral):
        raise BadRequest(f"{what} is a whole number; got {value!r:.80}.")


def names_of(outputs: Sequence[str] | None) -> Sequence[str]:
    """The names of the outputs that are wanted; none for all.

    Raises:
        ValueError: they are one text, which Python takes for a list of its letters, or no texts.
    """
    if outputs is None:
        return ()
    names = tuple(outputs)
    if isinstance(outputs, str) or not all(isinstance(name, str) for name in names):
        example = outputs if isinstance(outputs, str) else "logits"
        raise ValueError(f"outputs takes a list of names, such as {[example]!r:.80}; got {outputs!r:.80}.")
    return names
