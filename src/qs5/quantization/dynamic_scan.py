"""The recurrence as the paper quantizes it: inside the combine of the parallel prefix."""

import operator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qs5.model.discretize import Complex
from qs5.numerics.formats import RangeRule
from qs5.quantization.fake_quant import DynamicFormat, Operand, product, quantize


@dataclass(frozen=True, kw_only=True)
class ScanFormat:
    """How the products of a scan are quantized. None bits: float."""

    a_bits: int | None
    """Lambda-bar and its powers."""
    state_bits: int | None
    """What Lambda-bar's powers are multiplied with."""
    rule: RangeRule
    quantized_backward: bool


class ComplexOperand(NamedTuple):
    """Real and imaginary part, each with a scale of its own."""

    re: Operand
    im: Operand


def quantized_scan(
    a: Complex, b: jax.Array, x0: jax.Array | None, *, format: ScanFormat, reverse: bool
) -> jax.Array:
    """All states (L, B, S) of x_k = a x_{k-1} + b_k, by a prefix over pairs with quantized products:

        (A_i, b_i) o (A_j, b_j) = (A_j * A_i,  A_j * b_i + b_j)

    Each complex `*` is four real products of operands quantized with fresh dynamic scales: one scale for
    every node of the tree and every sequence, over the modes, real and imaginary parts apart. A has
    `a_bits`, b `state_bits`. Sums are float. So powers of A are rounded anew at every level, the state itself
    is never stored in few bits, and the result depends on the shape of the tree, hence on L.

    a (M,), b (L, B, S) packed, x0 (B, S) the state before the first step, or None for zero: a * x0 is added
    to the first b. Powers of A are (L, 1, M), the same for all sequences.
    Source: Q-S5 section 3.1 and the paper's code, where the combine is that of `jax.lax.associative_scan`.
    """
    M = b.shape[-1] // 2
    A = Complex(*(jnp.broadcast_to(v, (b.shape[0], 1, M)) for v in (a.re[None, None], a.im[None, None])))
    states = Complex(b[..., :M], b[..., M:])
    if reverse:
        states = _steps(states, slice(None, None, -1))
    if x0 is not None:
        start = Complex(x0[None, :, :M], x0[None, :, M:])
        first = _advance(_read(_steps(A, slice(1)), format), start, _steps(states, slice(1)), format)
        states = _join(first, _steps(states, slice(1, None)))
    x = _prefix(A, states, format)
    packed = jnp.concatenate([x.re, x.im], axis=-1)
    return packed[::-1] if reverse else packed


def _prefix(A: Complex, b: Complex, format: ScanFormat) -> Complex:
    """Second halves of the prefix. The tree is that of `jax.lax.associative_scan`: combine neighbours, recurse
    for every odd step, and continue from each odd step to the even one after it.

    Down the tree, products of A are left out: no state reads them.
    """
    L = b.re.shape[0]
    if L < 2:
        return b
    even, odd = slice(0, L - 1, 2), slice(1, None, 2)
    A_odd = _read(_steps(A, odd), format)
    pairs = _advance(A_odd, _steps(b, even), _steps(b, odd), format)
    after_odd = _prefix(_multiply(A_odd, _read(_steps(A, even), format), format), pairs, format)
    if L == 2:
        return _join(_steps(b, slice(1)), after_odd)
    rest = slice(2, None, 2)
    before_rest = _steps(after_odd, slice((L - 1) // 2))
    after_rest = _advance(_read(_steps(A, rest), format), before_rest, _steps(b, rest), format)
    return _interleave(_join(_steps(b, slice(1)), after_rest), after_odd)


def _read(A: Complex, format: ScanFormat) -> ComplexOperand:
    return _quantize(A, format.a_bits, format)


def _quantize(x: Complex, bits: int | None, format: ScanFormat) -> ComplexOperand:
    over_modes = DynamicFormat(bits=bits, rule=format.rule, axes=(-1,))
    return ComplexOperand(quantize(x.re, over_modes), quantize(x.im, over_modes))


def _multiply(a: ComplexOperand, b: ComplexOperand, format: ScanFormat) -> Complex:
    """Four quantized products, summed in float."""
    axes = (-1,) if format.quantized_backward else None

    def real(x: Operand, y: Operand) -> jax.Array:
        return product(operator.mul, x, y, gradient_axes=axes)

    return Complex(real(a.re, b.re) - real(a.im, b.im), real(a.re, b.im) + real(a.im, b.re))


def _advance(A: ComplexOperand, x: Complex, b: Complex, format: ScanFormat) -> Complex:
    """A * x + b: the state after a node, from the state before it."""
    rotated = _multiply(A, _quantize(x, format.state_bits, format), format)
    return Complex(rotated.re + b.re, rotated.im + b.im)


def _steps(x: Complex, steps: slice) -> Complex:
    return Complex(x.re[steps], x.im[steps])


def _join(x: Complex, y: Complex) -> Complex:
    return Complex(jnp.concatenate([x.re, y.re]), jnp.concatenate([x.im, y.im]))


def _interleave(even: Complex, odd: Complex) -> Complex:
    """Steps 0, 2, 4, ... and 1, 3, 5, ... in order; there may be one more even step."""
    return Complex(_weave(even.re, odd.re), _weave(even.im, odd.im))


def _weave(even: jax.Array, odd: jax.Array) -> jax.Array:
    n = odd.shape[0]
    paired = jnp.stack([even[:n], odd], axis=1).reshape(2 * n, *odd.shape[1:])
    return paired if even.shape[0] == n else jnp.concatenate([paired, even[n:]])
