"""Static quantization of weights: one step per output channel, or one for Lambda-bar."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qs5.numerics.formats import QFormat, RangeRule, edge
from qs5.numerics.multiplier import MANTISSA_BITS
from qs5.numerics.polar import OPERAND_BITS
from qs5.quantization.spec import POWER_OF_TWO_FROM
from qs5.quantization.ste import replace_value, round_half_up

FULL_RANGE_FROM = 8
"""From this width on nothing is clipped: the search would cost time in every step and gain next to nothing."""

_CLIP_RATIOS = np.linspace(0.3, 1.0, 15, dtype=np.float32)
"""Clipping points tried, as fractions of max|w|."""


class QuantizedWeight(NamedTuple):
    """value ~ w with straight-through gradient; value = codes * step. codes and step carry no gradient."""

    value: jax.Array
    codes: jax.Array
    """Integers as float32, shape of w."""
    step: jax.Array
    """Real, shape of w with length 1 on the reduced axes."""


def quantize_weight(
    w: jax.Array, *, bits: int | None, axes: tuple[int, ...], rule: RangeRule
) -> QuantizedWeight:
    """codes = clip(round(w / step)), step = r max|w| / edge over `axes`.

    r = 1 from 8 bits on, as in equation 3 of the paper; below, where that wastes most codes on the tails, the
    ratio of least square error. None bits: float.
    """
    if bits is None:
        return QuantizedWeight(w, w, jnp.ones_like(w))
    frozen = jax.lax.stop_gradient(w)
    top = jnp.max(jnp.abs(frozen), axis=axes, keepdims=True)
    top = jnp.where(top == 0.0, 1.0, top)
    if bits == 1:
        codes, step = jnp.where(frozen >= 0.0, 1.0, -1.0), 0.5 * top
    else:
        full = top / edge(bits, rule)
        step = best_step(frozen, full, bits=bits, axes=axes) if bits < FULL_RANGE_FROM else full
        codes = round_codes(frozen, step, bits)
    return QuantizedWeight(replace_value(w, codes * step), codes, step)


def round_codes(w: jax.Array, step: jax.Array, bits: int) -> jax.Array:
    """clip(round(w / step)) as float32 integers."""
    high = QFormat(bits).high
    return jnp.clip(round_half_up(w / step), -high, high)


def best_step(w: jax.Array, full: jax.Array, *, bits: int, axes: tuple[int, ...]) -> jax.Array:
    """Among r * full the step of least square rounding error, for each group of `axes`."""

    def error(ratio: jax.Array) -> jax.Array:
        step = full * ratio
        return jnp.sum(jnp.square(round_codes(w, step, bits) * step - w), axis=axes, keepdims=True)

    errors = jax.lax.map(error, jnp.asarray(_CLIP_RATIOS))
    return full * jnp.asarray(_CLIP_RATIOS)[jnp.argmin(errors, axis=0)]


class QuantizedEigenvalues(NamedTuple):
    """Lambda-bar with one step for real and imaginary parts: value = codes * step, step = M 2^-shift."""

    re: QuantizedWeight
    im: QuantizedWeight
    M: jax.Array | int
    """1 where the step is a power of two: linear codes from 12 bits on, and all polar ones."""
    shift: jax.Array | int
    """A plain int where the step is a power of two."""


def quantize_eigenvalues(re: jax.Array, im: jax.Array, *, bits: int, rule: RangeRule) -> QuantizedEigenvalues:
    """The paper's linear code of Lambda-bar (M,), per tensor.

    The step is a 15-bit multiplier and a shift (1 and bits - 1 from 12 bits on), so that the simulated and
    the integer recurrence use the very same number.
    """
    frozen = [jax.lax.stop_gradient(v) for v in (re, im)]
    if bits >= POWER_OF_TWO_FROM:
        M, shift = 1, bits - 1
        step = jnp.float32(2.0**-shift)
    else:
        top = jnp.maximum(*[jnp.max(jnp.abs(v)) for v in frozen])
        M, shift = mantissa_shift(jnp.where(top == 0.0, 1.0, top) / edge(bits, rule))
        step = jnp.ldexp(M.astype(jnp.float32), -shift)
    parts = [_code(w, v, step[None], bits) for w, v in zip((re, im), frozen, strict=True)]
    return QuantizedEigenvalues(*parts, M=M, shift=shift)


def coded_eigenvalues(
    re: jax.Array, im: jax.Array, operands: tuple[jax.Array, jax.Array]
) -> QuantizedEigenvalues:
    """Polar codes as the linear operands (re, im) that they decode to, integers as float32 (M,), with straight-through
    gradient."""
    shift = OPERAND_BITS - 1
    step = jnp.full(1, 2.0**-shift, jnp.float32)
    parts = [
        QuantizedWeight(replace_value(w, q * step), q, step) for w, q in zip((re, im), operands, strict=True)
    ]
    return QuantizedEigenvalues(*parts, M=1, shift=shift)


def _code(w: jax.Array, frozen: jax.Array, step: jax.Array, bits: int) -> QuantizedWeight:
    # One bit: codes -1, +1 as for other weights, at half the step.
    one_bit = jnp.where(frozen >= 0.0, 0.5, -0.5)
    codes = one_bit if bits == 1 else round_codes(frozen, step, bits)
    return QuantizedWeight(replace_value(w, codes * step), codes, step)


def mantissa_shift(ratio: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(M, shift) with M 2^-shift ~ ratio > 0, int32; `numerics.multiplier.fixed_point` in JAX.

    Ratios too small for the largest shift give M = 0.
    """
    fraction, exponent = jnp.frexp(ratio)
    M = jnp.floor(fraction * 2.0**MANTISSA_BITS + 0.5).astype(jnp.int32)
    carry = M == 2**MANTISSA_BITS
    M = jnp.where(carry, M // 2, M)
    shift = MANTISSA_BITS - exponent.astype(jnp.int32) - carry.astype(jnp.int32)
    return jnp.where(shift > 46, 0, M), jnp.clip(shift, 1, 46)
