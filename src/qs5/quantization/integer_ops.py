"""Integer operations of the exact forward pass, in JAX with 32-bit integers only.

Each has its definition, in 64-bit NumPy, in `qs5.numerics`; equality is tested exactly.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qs5.model.recurrence import reverse_scan, rotate

EXACT_FLOAT = 2**24
"""Integers up to here, and sums of them, are exact in float32."""


def requantize(acc: jax.Array, M: jax.Array, shift: jax.Array, *, low: int, high: int) -> jax.Array:
    """clip(floor((acc M + 2^(shift-1)) / 2^shift)), see `qs5.numerics.multiplier`; acc, M, shift int32.

    Shifts below 17 are raised to 17 by shifting acc left first. Where that could overflow acc is clipped; such
    an acc is so large that the result saturates either way.
    """
    left = jnp.maximum(17 - shift, 0)
    limit = jnp.right_shift(jnp.int32(2**31 - 1), left)
    acc = jnp.left_shift(jnp.clip(acc, -limit, limit), left)
    s = shift + left
    high_half, low_half = acc >> 16, acc & 0xFFFF
    t = high_half * M + ((low_half * M) >> 16)
    return jnp.clip((t + jnp.left_shift(jnp.int32(1), s - 17)) >> (s - 16), low, high)


def shift_round(acc: jax.Array, shift: int | jax.Array) -> jax.Array:
    """floor((acc + 2^(shift-1)) / 2^shift) for shift >= 1, acc + 2^(shift-1) below 2^31."""
    return (acc + jnp.left_shift(jnp.int32(1), jnp.int32(shift) - 1)) >> jnp.int32(shift)


def exact_dot(x: jax.Array, w: jax.Array, *, x_high: int, w_high: int) -> jax.Array:
    """x (..., I) times w (I, O) as int32, for float32 arrays that hold integers within the given bounds.

    float32 products of 8-bit integers sum exactly up to 2^24; wider x is split into two bytes, longer
    inner dimensions into chunks.
    """
    if x_high * w_high > EXACT_FLOAT // 8:
        top = jnp.floor(x * (1.0 / 256.0))
        high = exact_dot(top, w, x_high=x_high // 256 + 1, w_high=w_high)
        return high * 256 + exact_dot(x - 256.0 * top, w, x_high=255, w_high=w_high)
    chunk = EXACT_FLOAT // (x_high * w_high)
    pieces = range(0, w.shape[0], chunk)
    parts = [(x[..., i : i + chunk] @ w[i : i + chunk]).astype(jnp.int32) for i in pieces]
    return sum(parts[1:], start=parts[0])


def mean_over_time(q: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """floor((sum + n // 2) / n): the mean of n integers to nearest. q (L, B, H) int32, L at most 65,536."""
    total = jnp.sum(q, axis=0)
    n = jnp.int32(q.shape[0]) if lengths is None else lengths[:, None].astype(jnp.int32)
    return (total + n // 2) // n


class Affine(NamedTuple):
    """Integers of y = floor((x M + offset + 2^(shift-1)) / 2^shift), per channel, int32."""

    M: jax.Array
    offset: jax.Array
    shift: jax.Array


def fixed_affine(gain: jax.Array, offset: jax.Array) -> Affine:
    """Integers for y = gain x + offset (real ratios of integer codes), for x of at most 16 bits.

    shift is the largest, at most 30, with |M| < 2^15 and |offset| < 2^29: then x M + offset + half fits 32 bits.
    """
    gain_bits = jnp.frexp(gain)[1]
    offset_bits = jnp.frexp(offset)[1]
    shift = jnp.clip(jnp.minimum(15 - gain_bits, 29 - offset_bits), 1, 30).astype(jnp.int32)
    M = jnp.clip(jnp.floor(jnp.ldexp(gain, shift) + 0.5), -(2.0**15) + 1, 2.0**15 - 1)
    shifted = jnp.clip(jnp.floor(jnp.ldexp(offset, shift) + 0.5), -(2.0**29), 2.0**29)
    return Affine(M.astype(jnp.int32), shifted.astype(jnp.int32), shift)


def affine(x: jax.Array, a: Affine, *, low: int, high: int) -> jax.Array:
    """The definition in `Affine`, saturating; x (..., H) int32."""
    half = jnp.left_shift(jnp.int32(1), a.shift - 1)
    return jnp.clip((x * a.M + a.offset + half) >> a.shift, low, high)


def square_bits(channels: int) -> int:
    """The widest b with channels 2^(2b) <= 2^31: that many squares of b-bit integers sum within 32 bits."""
    return (31 - (channels - 1).bit_length()) // 2


def normalize(x: jax.Array) -> jax.Array:
    """Each step's channels (last axis) minus their mean, scaled to norm 2^15; x int32 with H max|x| <= 2^29.

    d_i = H x_i - sum x;  c_i = round(d_i 2^-t) of at most b bits;  V = sum c_i^2;  n_i = c_i 2^15 / sqrt(V), with the
    reciprocal root as r = floor(2^31 / floor(sqrt(V 4^z))). Definition: layer norm in the integer model's SPEC.md.
    """
    H = x.shape[-1]
    d = H * x - jnp.sum(x, axis=-1, keepdims=True)
    top = jnp.max(jnp.abs(d), axis=-1, keepdims=True)
    t = jnp.maximum(_bit_length(top) - square_bits(H), 0)
    c = jnp.where(t > 0, shift_round(d, jnp.maximum(t, 1)), d)
    V = jnp.sum((c * c).astype(jnp.uint32), axis=-1, keepdims=True)
    z = jnp.where(V > 0, (32 - _bit_length(V)) // 2, 0)
    root = _integer_sqrt(jnp.left_shift(V, (2 * z).astype(jnp.uint32)))
    r = jnp.where(V > 0, jnp.uint32(2**31) // jnp.maximum(root, 1), 0).astype(jnp.int32)
    return jnp.clip(shift_round(c * r, 16 - z), -(2**15) + 1, 2**15 - 1)


def _bit_length(v: jax.Array) -> jax.Array:
    """Bits of a non-negative integer, int32."""
    return 32 - jax.lax.clz(v.astype(jnp.uint32)).astype(jnp.int32)


def _integer_sqrt(v: jax.Array) -> jax.Array:
    """floor(sqrt(v)) of uint32, one bit at a time."""
    root = jnp.zeros_like(v)
    for bit in range(15, -1, -1):
        trial = root + jnp.uint32(1 << bit)
        root = jnp.where(trial * trial <= v, trial, root)
    return root


class Rotation(NamedTuple):
    """Integers of the exact recurrence, and the step of the state's grid (S,), real.

    a_re, a_im: codes of Lambda-bar (modes,) int32, of step M 2^-shift.
    """

    a_re: jax.Array
    a_im: jax.Array
    M: jax.Array
    shift: jax.Array
    step: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def exact_recurrence(
    a_re: jax.Array,
    a_im: jax.Array,
    b: jax.Array,
    x0: jax.Array,
    ints: Rotation,
    power: int | None,
    high: int,
    reverse: bool,
) -> jax.Array:
    """q_k = clip(requantize(A q_{k-1}) + b_k): the integer recurrence, states as real values (L, B, S).

    a_re, a_im (1, M), b (L, B, S), x0 (B, S) are real values on their grids. The two products of a complex
    part are summed before the one rounding, which is a plain shift by `power` where Lambda-bar's step is 2^-power
    (None: the multiplier of `ints`). Gradient: straight-through, by the float reverse scan over the integer states.
    """
    step = ints.step[None, :]
    start = (x0 * (1.0 / step)).astype(jnp.int32)
    added = (b * (1.0 / step[None])).astype(jnp.int32)
    c_re, c_im = ints.a_re[None, :], ints.a_im[None, :]

    def advance(q: jax.Array, b_k: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = jnp.clip(_rescale(rotate(c_re, c_im, q), ints, power) + b_k, -high, high)
        return q, q

    states = jax.lax.scan(advance, start, added, reverse=reverse)[1]
    return states.astype(jnp.float32) * step[None]


def _rescale(acc: jax.Array, ints: Rotation, power: int | None) -> jax.Array:
    """Back to the state's grid."""
    if power is not None:
        return shift_round(acc, power)
    return requantize(acc, ints.M, ints.shift, low=-(2**30), high=2**30)


def _exact_forward(a_re, a_im, b, x0, ints, power, high, reverse):
    xs = exact_recurrence(a_re, a_im, b, x0, ints, power, high, reverse)
    return xs, (a_re, a_im, xs, x0, ints)


def _exact_backward(power, high, reverse, saved, g):
    a_re, a_im, xs, x0, ints = saved
    gradients = reverse_scan(a_re, a_im, xs, x0, g, reverse=reverse)
    return (*gradients, jax.tree.map(_no_gradient, ints))


def _no_gradient(leaf: Any) -> Any:
    """Zero cotangent; of type float0 for integers, as JAX wants it."""
    if jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
        return np.zeros(np.shape(leaf), jax.dtypes.float0)
    return jnp.zeros_like(leaf)


exact_recurrence.defvjp(_exact_forward, _exact_backward)
