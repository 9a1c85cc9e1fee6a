"""The requantization rule: worked values, and equality with plain rational arithmetic."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, strategies as st

from qs5.numerics.multiplier import FixedPointMultiplier, fixed_point, requantize

WORKED = [(5, 2), (-5, -2), (6, 2), (-6, -2), (7, 3), (-7, -3), (2, 1), (-2, -1), (4, 2), (-4, -1), (0, 0)]
"""(acc, round(acc * 3/8)) with halves towards plus infinity, by hand: 5 gives 1.875, 4 gives 1.5, ..."""


def _by_fractions(acc: int, M: int, shift: int, low: int, high: int) -> int:
    return min(max(floor(Fraction(acc * M, 2**shift) + Fraction(1, 2)), low), high)


def test_halves_go_up_on_both_sides() -> None:
    half = FixedPointMultiplier(np.array(2**14), np.array(15))
    got = requantize(np.array([1, 3, -1, -3, 5, -5]), half, low=-100, high=100)
    assert got.tolist() == [1, 2, 0, -1, 3, -2]


@pytest.mark.parametrize(("acc", "expected"), WORKED)
def test_worked_values_of_three_eighths(acc: int, expected: int) -> None:
    m = fixed_point(0.375)
    assert int(requantize(np.array(acc), m, low=-100, high=100)) == expected


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(2**14, 2**15 - 1), st.integers(1, 46))
def test_equals_rational_arithmetic(acc: int, M: int, shift: int) -> None:
    m = FixedPointMultiplier(np.array(M), np.array(shift))
    got = int(requantize(np.array(acc), m, low=-(2**15), high=2**15))
    assert got == _by_fractions(acc, M, shift, -(2**15), 2**15)


@given(st.floats(2.0**-30, 2.0**13))
def test_multiplier_is_nearest_to_the_ratio(ratio: float) -> None:
    m = fixed_point(ratio)
    assert 2**14 <= int(m.M) < 2**15
    assert abs(float(m.ratio) / ratio - 1.0) <= 2.0**-15


def test_ratio_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="expected ratios below"):
        fixed_point(2.0**15)
