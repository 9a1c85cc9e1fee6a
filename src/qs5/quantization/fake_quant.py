"""Fake quantization with dynamic scales, and products of tensors quantized that way.

    step = max|x| / edge(bits, rule)                      over the axes that share a scale
    q    = clip(round(x / step), -(2^(bits-1) - 1), 2^(bits-1) - 1),      x ~ step q
    a b  ~ (q_a q_b) step_a step_b

Rounding is to nearest, ties to even. x / step is computed as x * (1 / step), as AQT does. A tensor of zeros
takes max|x| := 1. One bit has no zero: q = -1/2 for x < 0, +1/2 for x >= 0, and step = max|x| (AQT's two
levels). Integers are carried as float32: products of 8-bit ones are exact up to 2^24, and above that the
rounding is that of a float product.

Source: Q-S5 section 3.1 (equation 3: rule "paper"); AQT, as called by the paper's code: rule "aqt".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.numerics.formats import RangeRule, edge

_SMALLEST = 2.0**-109
"""Tensors below it count as zero: the step, and one over it, stay normal float32 numbers at every width."""


@dataclass(frozen=True, kw_only=True)
class DynamicFormat:
    """Bits (None: float) and range rule of a tensor, and which of its entries share one scale.

    axes: negative numbers; entries that differ in these only share a scale. None: the whole tensor.
    """

    bits: int | None
    rule: RangeRule
    axes: tuple[int, ...] | None = None


class Operand(eqx.Module):
    """A tensor as a product reads it: real ~ step * codes.

    `real` receives the gradient (straight-through); codes and step carry none.
    """

    real: jax.Array
    codes: jax.Array
    """Shape of `real`; `real` itself where the format is float."""
    step: jax.Array
    """Length 1 on the axes of the format; a scalar for a whole tensor."""
    format: DynamicFormat = eqx.field(static=True)


def quantize(x: jax.Array, format: DynamicFormat) -> Operand:
    """x as an operand on its own dynamic grid."""
    frozen = jax.lax.stop_gradient(x)
    if format.bits is None:
        return Operand(x, frozen, jnp.ones((), x.dtype), format)
    # A scan over few steps has slices without entries: their maximum needs an initial value.
    top = jnp.max(jnp.abs(frozen), axis=format.axes, keepdims=format.axes is not None, initial=0.0)
    step = jnp.where(top < _SMALLEST, 1.0, top) * (1.0 / edge(format.bits, format.rule))
    return Operand(x, _codes(frozen * (1.0 / step), format.bits), step, format)


def _codes(scaled: jax.Array, bits: int) -> jax.Array:
    if bits == 1:
        return jnp.clip(jnp.floor(scaled) + 0.5, -0.5, 0.5)
    high = 2.0 ** (bits - 1) - 1.0
    return jnp.clip(jnp.round(scaled), -high, high)


def nearest(x: jax.Array, format: DynamicFormat) -> jax.Array:
    """step * q, the values x is replaced with; no gradient."""
    quantized = quantize(x, format)
    return quantized.codes * quantized.step


Bilinear = Callable[[jax.Array, jax.Array], jax.Array]


def product(op: Bilinear, a: Operand, b: Operand, *, gradient_axes: tuple[int, ...] | None) -> jax.Array:
    """op(a, b) for a bilinear op, `operator.mul` or `operator.matmul`, of quantized operands.

    forward:   y = op(q_a, q_b) step_a step_b

    backward, with g the cotangent of y, and op^T the transpose of op in its first (second) argument:
        float      da = op^T(g step_b, q_b),           db = op^T(q_a, g step_a)
        quantized  da = op^T(Q(g step_b), Q(q_b)),     db = op^T(Q(q_a), Q(g step_a))

    Float is the gradient of op at the quantized operands, passed straight through the quantizers. In the
    quantized backward pass Q is the quantizer of this module with max(bits of a, bits of b), a new dynamic
    scale over `gradient_axes` for the cotangent and over the operand's own axes for its integers, so that
    these are rounded a second time. Sums over broadcast axes are taken in float, after Q.

    gradient_axes: None for the float backward pass.
    Source: Q-S5 quantizes the backward pass by AQT's `fully_quantized(bwd_bits=max(bits))`.
    """
    if a.format.bits is None and b.format.bits is None:
        return op(a.real, b.real)
    return _product(op, gradient_axes, a, b)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(op: Bilinear, gradient_axes: tuple[int, ...] | None, a: Operand, b: Operand) -> jax.Array:
    return op(a.codes, b.codes) * (a.step * b.step)


def _forward(
    op: Bilinear, gradient_axes: tuple[int, ...] | None, a: Operand, b: Operand
) -> tuple[jax.Array, tuple[Operand, Operand]]:
    return _product(op, gradient_axes, a, b), (a, b)


def _backward(
    op: Bilinear, gradient_axes: tuple[int, ...] | None, saved: tuple[Operand, Operand], g: jax.Array
) -> tuple[Operand, Operand]:
    a, b = saved
    g_a, g_b, q_a, q_b = g * b.step, g * a.step, a.codes, b.codes
    if gradient_axes is not None:
        bits = max(f.bits for f in (a.format, b.format) if f.bits is not None)
        of_gradient = DynamicFormat(bits=bits, rule=a.format.rule, axes=gradient_axes)
        g_a, g_b = nearest(g_a, of_gradient), nearest(g_b, of_gradient)
        q_a, q_b = (nearest(x.codes, replace(x.format, bits=bits)) for x in (a, b))
    (da,) = jax.linear_transpose(lambda x: op(x, q_b), a.codes)(g_a)
    (db,) = jax.linear_transpose(lambda x: op(q_a, x), b.codes)(g_b)
    return _cotangent(a, da), _cotangent(b, db)


def _cotangent(x: Operand, d: jax.Array) -> Operand:
    return Operand(d, jnp.zeros_like(x.codes), jnp.zeros_like(x.step), x.format)


_product.defvjp(_forward, _backward)
