"""Values of another scale, and values that are no numbers, are noticed; odd ones are not."""

import ml_dtypes
import numpy as np
import pytest

from sluice.policy.errors import BadRequest, InputNotFinite
from sluice.policy.plausibility import check_values

PICTURES = np.linspace(0, 1, 24, dtype=np.float32).reshape(3, 2, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32, ml_dtypes.bfloat16])
def test_usual_and_odd_values_pass(dtype) -> None:
    for values in (PICTURES, 5 * PICTURES, 0 * PICTURES):
        check_values("image", values.astype(dtype), (0, 1))
    check_values("image", -4 * PICTURES, (0, 1))
    check_values("image", 1e30 * PICTURES, None)


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.empty((2, 0)), np.array([b"a"], object), np.array([True])])
def test_what_has_no_scale_passes(values) -> None:
    check_values("text", values, (0, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, ml_dtypes.bfloat16])
def test_bytes_where_0_to_1_is_meant_are_told(dtype) -> None:
    pictures = PICTURES.copy()
    pictures[1] *= 255
    with pytest.raises(BadRequest, match=r"Row 1 of input 'image'.*from 0 to 1\..*dividing them by 255") as raised:
        check_values("image", pictures.astype(dtype), (0, 1))
    assert raised.value.details["row"] == 1
    assert raised.value.details["expected"] == [0, 1]


@pytest.mark.parametrize(("factor", "usual"), [(-6, (0, 1)), (3000, (0, 1)), (255, (-1, 1)), (6000, (0, 255))])
def test_other_scales_are_told_without_a_guess(factor, usual) -> None:
    with pytest.raises(BadRequest, match="Scale them") as raised:
        check_values("image", factor * PICTURES, usual)
    assert "dividing" not in raised.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("usual", [None, (0, 1)])
def test_numbers_that_are_none_are_told_with_their_row(value, usual) -> None:
    pictures = PICTURES.copy()
    pictures[2, 1, 3] = value
    with pytest.raises(InputNotFinite, match="Row 2"):
        check_values("image", pictures, usual)


def test_single_values_are_rows_too() -> None:
    check_values("x", np.array([0.5, 1.0]), (0, 1))
    with pytest.raises(BadRequest, match="Row 1"):
        check_values("x", np.array([0.5, 100.0]), (0, 1))
