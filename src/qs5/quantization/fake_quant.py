"""Fake quantization with dynamic scales, and products of tensors quantized that way.

    step = max|x| / edge(bits, rule)                       over the entries that share a scale
    Q(x) = step clip(round(x / step), -(2^(bits-1) - 1), 2^(bits-1) - 1)

Rounding is to nearest, ties to even. x / step is computed as x * (1 / step), as AQT does. Where all of x is
zero, max|x| := 1. One bit has no zero: Q(x) = -step/2 for x < 0 and +step/2 for x >= 0, step = max|x| (AQT's
two levels, under either range rule).

Source: Q-S5 section 3.1, equation 3 (rule "paper"); AQT as the paper's code calls it (rule "aqt").
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.numerics.formats import RangeRule, edge
from qs5.quantization.ste import replace_value

_SMALLEST = 2.0**-109
"""What is smaller counts as zero: then step and 1 / step are normal float32 numbers at 1 to 16 bits."""


@dataclass(frozen=True, kw_only=True)
class DynamicFormat:
    """Bits (None: float) and range rule of a tensor, and which of its entries share a scale."""

    bits: int | None
    rule: RangeRule
    axes: tuple[int, ...] | None = None
    """Axes along which the scale is the same, counted from the end; None: all."""


def nearest(x: jax.Array, format: DynamicFormat) -> jax.Array:
    """Q(x), of the shape of x."""
    if format.bits is None:
        return x
    # The maximum of no numbers needs an initial value: the last slice of a scan over few steps is empty.
    top = jnp.max(jnp.abs(x), axis=format.axes, keepdims=format.axes is not None, initial=0.0)
    step = jnp.where(top < _SMALLEST, 1.0, top) / edge(format.bits, format.rule)
    return _integers(x * (1.0 / step), format.bits) * step


def _integers(scaled: jax.Array, bits: int) -> jax.Array:
    if bits == 1:
        return jnp.clip(jnp.floor(scaled) + 0.5, -0.5, 0.5)
    high = 2.0 ** (bits - 1) - 1.0
    return jnp.clip(jnp.round(scaled), -high, high)


class Operand(eqx.Module):
    """One side of a product: a real array on the dynamic grid of its format.

    The gradient goes straight through to the tensor it was made from; the scale gets none.
    """

    value: jax.Array
    format: DynamicFormat = eqx.field(static=True)


def quantize(x: jax.Array, format: DynamicFormat) -> Operand:
    """Q(x) with the gradient of x."""
    if format.bits is None:
        return Operand(x, format)
    return Operand(replace_value(x, nearest(jax.lax.stop_gradient(x), format)), format)


Bilinear = Callable[[jax.Array, jax.Array], jax.Array]
"""Linear in each argument: `operator.mul`, `operator.matmul`. It must be defined at module level."""


def product(op: Bilinear, a: Operand, b: Operand, *, quantized_backward: bool) -> jax.Array:
    """y = op(a, b), where a is an activation and y has the axes of a.

    Backward, with g the cotangent of y, and op^T the transpose of op in one argument:

        float      da = op^T(g, b),          db = op^T(a, g)
        quantized  da = op^T(Q(g), Q(b)),    db = op^T(Q(a), Q(g))

    with max(bits of a, bits of b) and the range rule of a. g shares scales as a does. a and b are rounded a
    second time. Sums over axes that op broadcasts are taken last, in float.

    Source: the paper's code (AQT, bwd_bits = max(bits)), which quantizes g step_b and a / step_a. Dynamic
    scales make that the same: Q(s x) = s Q(x) for an s > 0 that is constant where the scale is (at one bit:
    except where all of x is zero).
    """
    if not quantized_backward or (a.format.bits is None and b.format.bits is None):
        return op(a.value, b.value)
    bits = max(f.bits for f in (a.format, b.format) if f.bits is not None)
    return _product(op, replace(a.format, bits=bits), replace(b.format, bits=bits), a.value, b.value)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(
    op: Bilinear, a_format: DynamicFormat, b_format: DynamicFormat, a: jax.Array, b: jax.Array
) -> jax.Array:
    return op(a, b)


def _forward(
    op: Bilinear, a_format: DynamicFormat, b_format: DynamicFormat, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return op(a, b), (a, b)


def _backward(
    op: Bilinear,
    a_format: DynamicFormat,
    b_format: DynamicFormat,
    saved: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    _, transpose = jax.vjp(op, nearest(saved[0], a_format), nearest(saved[1], b_format))
    return transpose(nearest(g, a_format))


_product.defvjp(_forward, _backward)
