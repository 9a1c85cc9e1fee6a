"""The integer functions that the ops are made of, in 64-bit NumPy. SPEC.md, section 3."""

import numpy as np

from qs5.numerics.multiplier import FixedPointMultiplier, requantize as requantize_by, rounding_shift

NORM_BITS = 15
"""Layer norm brings the channels of a step to a Euclidean norm of 2^15."""


def shift(x: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """floor((x + 2^(s-1)) / 2^s) for s > 0, x 2^(-s) for s <= 0."""
    x, s = np.asarray(x, np.int64), np.asarray(s, np.int64)
    return np.where(s > 0, rounding_shift(x, np.maximum(s, 1)), x << np.maximum(-s, 0))


def requantize(acc: np.ndarray, M: np.ndarray | int, s: np.ndarray | int) -> np.ndarray:
    """floor((acc M + 2^(s-1)) / 2^s), not yet saturated."""
    multiplier = FixedPointMultiplier(np.asarray(M, np.int64), np.asarray(s, np.int64))
    return requantize_by(acc, multiplier, low=-(2**62), high=2**62)


def affine(x: np.ndarray, M: np.ndarray, offset: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """floor((x M + offset + 2^(s-1)) / 2^s), s >= 1."""
    return rounding_shift(np.asarray(x, np.int64) * M + offset, s)


def bit_length(x: np.ndarray) -> np.ndarray:
    """Bits of a non-negative integer: 0 for 0, else floor(log2 x) + 1."""
    n, rest = np.zeros(np.shape(x), np.int64), np.asarray(x, np.int64)
    while np.any(rest):
        n, rest = n + (rest > 0), rest >> 1
    return n


def integer_sqrt(v: np.ndarray) -> np.ndarray:
    """floor(sqrt(v)) for 0 <= v < 2^32, one bit at a time."""
    v = np.asarray(v, np.int64)
    root = np.zeros_like(v)
    for bit in range(15, -1, -1):
        trial = root + (1 << bit)
        root = np.where(trial * trial <= v, trial, root)
    return root


def square_bits(channels: int) -> int:
    """The widest b with channels 2^(2b) <= 2^31: that many squares of b-bit integers sum without overflow."""
    return (31 - int(channels - 1).bit_length()) // 2


def normalize(x: np.ndarray) -> np.ndarray:
    """The channels (last axis) of each step minus their mean, scaled to Euclidean norm about 2^15.

    d_i = H x_i - sum x;  c_i = shift(d_i, t) with t = max(0, bits of max |d| - b);  V = sum c_i^2;
    V 4^z in [2^30, 2^32);  r = floor(2^31 / floor(sqrt(V 4^z)));  n_i = shift(c_i r, 16 - z), |n_i| <= 2^15.

    All-equal channels give zeros. No epsilon: an integer variance is 0 or at least as large as rounding makes it.
    """
    x = np.asarray(x, np.int64)
    H = x.shape[-1]
    d = H * x - np.sum(x, axis=-1, keepdims=True)
    top = np.max(np.abs(d), axis=-1, keepdims=True)
    t = np.maximum(bit_length(top) - square_bits(H), 0)
    c = shift(d, t)
    V = np.sum(c * c, axis=-1, keepdims=True)
    z = np.where(V > 0, (32 - bit_length(V)) // 2, 0)
    root = integer_sqrt(V << (2 * z))
    r = np.where(V > 0, 2**31 // np.maximum(root, 1), 0)
    return np.clip(shift(c * r, 16 - z), -(2**NORM_BITS) + 1, 2**NORM_BITS - 1)


def rounded_mean(total: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """floor((total + floor(n / 2)) / n): to nearest, halves up for even n."""
    n = np.asarray(n, np.int64)
    return (np.asarray(total, np.int64) + n // 2) // n
