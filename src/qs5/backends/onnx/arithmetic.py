"""The integer functions of SPEC.md, section 3, as ONNX nodes.

ONNX shifts unsigned integers only, and its integer Div truncates. Hence

    floor((x + a) / 2^s) = ((x + a + 2^(w-1)) >> s) - 2^(w-1-s)      in unsigned w-bit integers (w = 32 or 64),

as x + a + 2^(w-1) >= 0 whatever the sign of x, and 2^(w-1) / 2^s is whole for s <= w - 1. And

    floor(x / n) = (x - (x mod n)) / n                                for n > 0: ONNX's integer Mod has the sign of n.

Accumulators are int32 (the checks of a model prove that they fit); products with a 15-bit multiplier are int64.
"""

import numpy as np

from qs5.backends.onnx.builder import Builder, Numbers, Value, at
from qs5.integer.arithmetic import NORM_BITS, square_bits
from qs5.integer.signals import Signal

SQRT_BITS = 16
"""Of the root of a 32-bit number."""


def integers(values: Numbers) -> np.ndarray:
    """Python integers in an array, for constants whose sums pass 64 bits before they are reduced."""
    return np.asarray(values).astype(object)


def floor_shift(b: Builder, x: Value, *, add: Numbers, shift: Numbers, width: int) -> Value:
    """floor((x + add) / 2^shift) with constants 0 <= shift < width; x is int32 or int64 as width says."""
    high, modulus = 2 ** (width - 1), 2**width
    unsigned = f"uint{width}"
    s = integers(shift)
    u = b.node("Add", b.cast(x, unsigned), b.constant((integers(add) + high) % modulus, unsigned))
    u = b.node("BitShift", u, b.constant(s, unsigned), direction="RIGHT")
    u = b.node("Sub", u, b.constant(high // 2**s, unsigned))
    return b.cast(u, f"int{width}")


def half(shift: Numbers) -> np.ndarray:
    """2^(s-1), what rounds to nearest before a shift by s; 0 for s = 0."""
    return 2 ** integers(shift) // 2


def shift(b: Builder, x: Value, s: Numbers) -> Value:
    """int32 x: floor((x + 2^(s-1)) / 2^s) for s > 0, x 2^(-s) for s <= 0; s a constant of either sign."""
    right, left = np.maximum(np.asarray(s, np.int64), 0), np.maximum(-np.asarray(s, np.int64), 0)
    if np.any(left):
        x = b.node("Mul", x, b.constant(2 ** integers(left), "int32"))
    return floor_shift(b, x, add=half(right), shift=right, width=32) if np.any(right) else x


def requantize(b: Builder, acc: Value, M: Numbers, s: Numbers) -> Value:
    """int32 acc to int64: floor((acc M + 2^(s-1)) / 2^s), not yet saturated."""
    product = b.node("Mul", b.cast(acc, "int64"), b.constant(M, "int64"))
    return floor_shift(b, product, add=half(s), shift=s, width=64)


def affine(b: Builder, x: Value, *, M: Numbers, offset: Numbers, shift: Numbers, width: int) -> Value:
    """floor((x M + offset + 2^(shift-1)) / 2^shift)."""
    product = b.node("Mul", x, b.constant(M, f"int{width}"))
    return floor_shift(b, product, add=integers(offset) + half(shift), shift=shift, width=width)


def bounded(b: Builder, x: Value, low: int, high: int, *, width: int, out: Value | None = None) -> Value:
    """x clipped to low..high."""
    dtype = f"int{width}"
    return b.node("Clip", x, b.constant(low, dtype), b.constant(high, dtype), out=out)


def saturate(b: Builder, x: Value, signal: Signal, *, width: int) -> Value:
    """x clipped to the format of a signal, as int32, under the name of the signal."""
    if width == 32:
        return bounded(b, x, signal.low, signal.high, width=32, out=at(signal.name))
    clipped = bounded(b, x, signal.low, signal.high, width=64)
    return b.node("Cast", clipped, to=b.element("int32"), out=at(signal.name))


def rounded_divide(b: Builder, x: Value, n: Value, *, width: int) -> Value:
    """floor((x + floor(n / 2)) / n) for n > 0 of the type of x: a rounded mean, or a shift if n is a power of two."""
    x = b.node("Add", x, b.node("Div", n, b.constant(2, f"int{width}")))
    return b.node("Div", b.node("Sub", x, b.node("Mod", x, n)), n)


# -- layer norm ------------------------------------------------------------------------------------------------


def bit_length(b: Builder, x: Value, *, bits: int) -> Value:
    """int64 x (..., 1), 0 <= x < 2^bits: how many of 2^0, 2^1, ..., 2^(bits-1) are not above it."""
    powers = b.constant(2 ** integers(np.arange(bits)), "int64")
    reached = b.cast(b.node("GreaterOrEqual", x, powers), "int64")
    return b.node("ReduceSum", reached, b.constant([-1], "int64"), keepdims=1)


def integer_sqrt(b: Builder, v: Value) -> Value:
    """int64 v: floor(sqrt(v)) for 0 <= v < 2^32, one bit at a time."""
    root = b.constant([0], "int64")
    for bit in reversed(range(SQRT_BITS)):
        trial = b.node("Add", root, b.constant([2**bit], "int64"))
        fits = b.node("LessOrEqual", b.node("Mul", trial, trial), v)
        root = b.node("Where", fits, trial, root)
    return root


def power(b: Builder, base: int, exponent: Value) -> Value:
    """base^exponent for int64 exponents of 0 to 31, base 2 or 4."""
    return b.node("Gather", b.constant(base ** integers(np.arange(32)), "int64"), exponent)


def normalize(b: Builder, x: Value, channels: int) -> Value:
    """int32 x (..., H): its channels minus their mean, scaled to Euclidean norm about 2^15; int64.

    d = H x - sum x;  c = d / 2^t with the least t such that |c| <= 2^b;  V = sum c^2;  V 4^z in [2^30, 2^32);
    r = floor(2^31 / floor(sqrt(V 4^z)));  n = c r / 2^(16-z), quotients rounded to nearest.

    The reference sets z and r to 0 where V = 0. Here they are 16 and 2^31; c = 0 there, so n = 0 all the same.
    """
    last = b.constant([-1], "int64")
    total = b.node("ReduceSum", x, last, keepdims=1)
    d = b.node("Sub", b.node("Mul", x, b.constant(channels, "int32")), total)
    top = b.cast(b.node("ReduceMax", b.node("Abs", d), last, keepdims=1), "int64")
    t = b.node("Sub", bit_length(b, top, bits=31), b.constant(square_bits(channels), "int64"))
    t = b.node("Max", t, b.constant(0, "int64"))
    c = rounded_divide(b, b.cast(d, "int64"), power(b, 2, t), width=64)
    V = b.node("ReduceSum", b.node("Mul", c, c), last, keepdims=1)
    spare = b.node("Sub", b.constant(32, "int64"), bit_length(b, V, bits=32))
    z = b.node("Div", spare, b.constant(2, "int64"))
    root = integer_sqrt(b, b.node("Mul", V, power(b, 4, z)))
    r = b.node("Div", b.constant(2**31, "int64"), b.node("Max", root, b.constant(1, "int64")))
    right = b.node("Sub", b.constant(16, "int64"), z)
    n = rounded_divide(b, b.node("Mul", c, r), power(b, 2, right), width=64)
    return bounded(b, n, -(2**NORM_BITS) + 1, 2**NORM_BITS - 1, width=64)
