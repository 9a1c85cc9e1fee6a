"""Rescaling an integer without floating point: a 15-bit multiplier and a rounding right shift.

    requantize(acc, M, s) = clip(floor((acc M + 2^(s-1)) / 2^s), low, high)      (in exact arithmetic)

with 2^14 <= M < 2^15 and s >= 1: M 2^-s stands for the real ratio of two steps, to 16 bits of precision.
Rounding is to nearest, halves towards plus infinity: the one tie rule of the package's integer side.

Why 15 bits: with acc = 2^16 hi + lo (hi signed, lo unsigned) and s >= 17,

    floor(acc M / 2^16) = hi M + floor(lo M / 2^16),   and   requantize = (that + 2^(s-17)) >> (s-16)

exactly, and every term fits 32 bits. So int32 machines need no 64-bit product (JAX without x64, Cortex-M0),
and vector units need two 16-bit multiplies a lane.
"""

from typing import NamedTuple

import numpy as np

MANTISSA_BITS = 15
MAX_SHIFT = 46


class FixedPointMultiplier(NamedTuple):
    """M 2^-shift, arrays or integers of one shape; M is 0 for a ratio too small to matter."""

    M: np.ndarray
    shift: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """The real number it stands for."""
        return np.ldexp(self.M.astype(np.float64), -self.shift)


def fixed_point(ratio: np.ndarray | float) -> FixedPointMultiplier:
    """Nearest multiplier of positive ratios (any shape). Raises ValueError for ratios of 2^14 and above."""
    fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
    M = np.floor(np.ldexp(fraction, MANTISSA_BITS) + 0.5).astype(np.int64)
    carry = M == 2**MANTISSA_BITS
    M, exponent = np.where(carry, M // 2, M), exponent + carry
    shift = MANTISSA_BITS - exponent
    if np.any(shift < 1):
        raise ValueError(f"expected ratios below 2^{MANTISSA_BITS - 1}, got {np.max(ratio)}")
    negligible = shift > MAX_SHIFT
    return FixedPointMultiplier(np.where(negligible, 0, M), np.where(negligible, MAX_SHIFT, shift))


def rounding_shift(x: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """floor((x + 2^(s-1)) / 2^s), s >= 1, in int64: x 2^-s to nearest, halves towards plus infinity."""
    s = np.asarray(s, np.int64)
    return (np.asarray(x, np.int64) + np.left_shift(np.int64(1), s - 1)) >> s


def requantize(acc: np.ndarray, multiplier: FixedPointMultiplier, *, low: int, high: int) -> np.ndarray:
    """The definition above, in int64. acc: any integers below 2^31 in magnitude."""
    product = np.asarray(acc, np.int64) * np.asarray(multiplier.M, np.int64)
    return np.clip(rounding_shift(product, multiplier.shift), low, high)
