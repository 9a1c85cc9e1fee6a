"""Formats of signals: their ranges by hand, and the type that holds them."""

import numpy as np
import pytest

from qs5.integer.signals import Signal
from qs5.numerics.formats import QFormat


def signal(bits: int, signed: bool) -> Signal:
    return Signal(name="s", channels=1, bits=bits, signed=signed)


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high", "dtype"),
    [
        (1, True, -1, 1, "int8"),
        (2, True, -1, 1, "int8"),
        (3, True, -3, 3, "int8"),
        (8, True, -127, 127, "int8"),
        (9, True, -255, 255, "int16"),
        (16, True, -32767, 32767, "int16"),
        (1, False, 0, 1, "uint8"),
        (8, False, 0, 255, "uint8"),
        (9, False, 0, 511, "uint16"),
        (16, False, 0, 65535, "uint16"),
    ],
)
def test_ranges_by_hand(bits: int, signed: bool, low: int, high: int, dtype: str) -> None:
    s = signal(bits, signed)
    assert (s.low, s.high, s.dtype) == (low, high, np.dtype(dtype))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(1, 17))
def test_every_format(bits: int, signed: bool) -> None:
    s = signal(bits, signed)
    info = np.iinfo(s.dtype)
    assert info.min <= s.low <= 0 < s.high <= info.max
    assert bits <= info.bits
    assert s.low == (-s.high if signed else 0)
    assert (s.low, s.high) == (QFormat(bits, signed).low, QFormat(bits, signed).high)  # what training used
    if signed:
        assert s.low > -(2 ** max(bits - 1, 1))  # the most negative number is never a code
