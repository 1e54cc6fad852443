"""Decides whether the numbers of an input can be meant as they are: finite, and not of another scale than the model's.

It does not know models or what inputs show.
"""

from math import isfinite
from typing import Any

from numpy.typing import NDArray

from sluice.policy.errors import BadRequest, InputNotFinite

Array = NDArray[Any]

_FAR = 4  # how many times its own width a range may be exceeded: an odd picture is an answer, another scale a mistake
_PIXEL = 255


def check_values(name: str, rows: Array, usual: tuple[float, float] | None) -> None:
    """Check the input `name`, `rows` `[batch, ...]` of any dtype, of which `usual` are the least and greatest value.

    Where `usual` is None, any finite number will do.

    Raises:
        InputNotFinite: NaN or infinity; says which row.
        BadRequest: values beyond the usual ones by more than four times the width of their range; says which row.
    """
    if rows.dtype.kind not in "fiuV" or not rows.size or not rows.ndim:
        return
    if _is_plausible(*_ends(rows), usual):
        return
    ends = [_ends(row) for row in rows]
    number = [_is_plausible(*each, usual) for each in ends].index(False)
    raise _error(name, number, *ends[number], usual)


def _ends(rows: Array) -> tuple[float, float]:
    """The least number and the greatest, both NaN if there is one; by their places, which takes half the time."""
    flat = rows.ravel()
    return float(flat[flat.argmin()]), float(flat[flat.argmax()])


def _is_plausible(least: float, greatest: float, usual: tuple[float, float] | None) -> bool:
    """Of numbers from `least` to `greatest`, where NaN is both."""
    if usual is None:
        return isfinite(least) and isfinite(greatest)
    far = _FAR * (usual[1] - usual[0])
    return usual[0] - far <= least and greatest <= usual[1] + far


def _error(name: str, number: int, least: float, greatest: float, usual: tuple[float, float] | None) -> BadRequest:
    if usual is None or not (isfinite(least) and isfinite(greatest)):
        return InputNotFinite(f"Row {number} of input {name!r} holds NaN or infinity; send finite numbers.", row=number)
    hint = f", such as by dividing them by {_PIXEL}" if usual == (0, 1) and least >= 0 and greatest <= _PIXEL else ""
    return BadRequest(
        f"Row {number} of input {name!r} has values from {least:g} to {greatest:g}, and the model was made for values "
        f"from {usual[0]:g} to {usual[1]:g}. Scale them as its training data were{hint}.",
        row=number, expected=list(usual), got=[least, greatest],
    )  # fmt: skip
