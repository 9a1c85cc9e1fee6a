"""The recurrence as the paper quantizes it: inside the combine of a parallel prefix.

Twice: `tree_native` in C++ on a CPU, `tree_jax` everywhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from qs5.kernels import native
from qs5.kernels.prefix import PrefixGrid, PrefixOptions, prefix
from qs5.model.discretize import Complex
from qs5.numerics.formats import RangeRule, edge
from qs5.quantization.fake_quant import DynamicFormat, Operand, product, quantize


@dataclass(frozen=True, kw_only=True)
class ScanFormat:
    """How the products of a scan are quantized; None bits: float."""

    a_bits: int | None
    """Lambda-bar and its powers."""
    state_bits: int | None
    """What they are multiplied with."""
    rule: RangeRule
    quantized_backward: bool


Tree = Callable[[Complex, jax.Array, ScanFormat, bool], jax.Array]
"""(a, b, format, reverse) -> the states from zero."""


def quantized_scan(
    a: Complex,
    b: jax.Array,
    x0: jax.Array | None,
    *,
    format: ScanFormat,
    reverse: bool,
    tree: Tree | None = None,
) -> jax.Array:
    """All states (L, B, S) of x_k = a x_{k-1} + b_k, by a prefix over pairs with quantized products:

        (A_i, b_i) o (A_j, b_j) = (A_j * A_i,  A_j * b_i + b_j)

    Each complex `*` is four real products of operands quantized with fresh dynamic scales: one for every
    node of the tree and every sequence, over the modes, real and imaginary parts apart. A has `a_bits`, b
    `state_bits`. Sums are float. So powers of A are rounded anew at every level, the state itself is never
    held in few bits, and the result depends on the shape of the tree, hence on L.

    a (M,), b (L, B, S) packed, x0 (B, S) the state before the first step, or None for zero: a * x0 is added
    to the first b. tree: what computes it; None: `default_tree`.
    Source: Q-S5 section 3.1; the paper's code, whose tree is that of `jax.lax.associative_scan`.
    """
    if x0 is not None:
        first = slice(-1, None) if reverse else slice(1)
        batch, S = x0.shape
        parts = (1, batch, 2, S // 2)
        power = _read(jnp.stack(a)[None, None], format.a_bits, format)
        entered = _advance(power, x0.reshape(parts), b[first].reshape(parts), format)
        b = b.at[first].set(entered.reshape(1, batch, S))
    return (tree or default_tree(b.dtype))(a, b, format, reverse)


def default_tree(dtype: jnp.dtype) -> Tree:
    """`tree_native` where there are kernels (float32 on a CPU), else `tree_jax`."""
    return tree_native if dtype == jnp.float32 and native.available() else tree_jax


def tree_native(a: Complex, b: jax.Array, format: ScanFormat, reverse: bool) -> jax.Array:
    """The tree in C++, forward and backward."""
    both = max(format.a_bits or 0, format.state_bits or 0) or None
    back, a_back = (both, format.a_bits) if format.quantized_backward else (None, None)
    a_grid, state, back, a_back = (_grid(n, format) for n in (format.a_bits, format.state_bits, back, a_back))
    options = PrefixOptions(reverse=reverse, a=a_grid, state=state, back=back, a_back=a_back)
    return prefix(options, jnp.concatenate(a), b)


def _grid(bits: int | None, format: ScanFormat) -> PrefixGrid:
    return PrefixGrid() if bits is None else PrefixGrid(bits, edge(bits, format.rule))


def tree_jax(a: Complex, b: jax.Array, format: ScanFormat, reverse: bool) -> jax.Array:
    """The tree in JAX. The powers of A are the same for all sequences, (L, 1, 2, M)."""
    L, batch, S = b.shape
    A = jnp.broadcast_to(jnp.stack(a)[None, None], (L, 1, 2, S // 2))
    # Axis 2 holds real and imaginary part, so that one reduction over the last axis gives both scales.
    b = b.reshape(L, batch, 2, S // 2)
    x = _prefix(A, b[::-1] if reverse else b, format)
    return (x[::-1] if reverse else x).reshape(L, batch, S)


def _prefix(A: jax.Array, b: jax.Array, format: ScanFormat) -> jax.Array:
    """The states: b's half of the prefix. A (L, 1, 2, M), b (L, B, 2, M).

    The tree is that of `jax.lax.associative_scan`: combine neighbours, recurse for every second step, go on
    from each of these to the step after it. Going down, products of A are left out: no state reads them.
    """
    L = b.shape[0]
    if L < 2:
        return b
    A_q = _read(A, format.a_bits, format)
    (A_1, A_2), (b_1, b_2) = _split(A_q.value), _split(b)
    rows = partial(Operand, format=A_q.format)
    A_pairs = _multiply(rows(A_2), rows(A_1[: L // 2]), format)
    b_pairs = _advance(rows(A_2), b_1[: L // 2], b_2, format)
    # Without the barriers XLA's CPU backend computes a level again wherever one below it reads it.
    A_pairs, b_pairs = jax.lax.optimization_barrier((A_pairs, b_pairs))
    x_2 = _prefix(A_pairs, b_pairs, format)
    x_1 = _advance(rows(A_1[1:]), x_2[: (L - 1) // 2], b_1[1:], format)
    return jax.lax.optimization_barrier(_interleave(jnp.concatenate([b_1[:1], x_1]), x_2))


def _read(x: jax.Array, bits: int | None, format: ScanFormat) -> Operand:
    return quantize(x, DynamicFormat(bits=bits, rule=format.rule, axes=(-1,)))


def _multiply(a: Operand, b: Operand, format: ScanFormat) -> jax.Array:
    return product(_complex_product, a, b, quantized_backward=format.quantized_backward)


def _advance(A: Operand, x: jax.Array, b: jax.Array, format: ScanFormat) -> jax.Array:
    """A * x + b: the state after a node, from the state before it."""
    return _multiply(A, _read(x, format.state_bits, format), format) + b


# Three linear functions with their transposes written out: those that JAX derives take twice the time.


@jax.custom_vjp
def _complex_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, for a (n, 1, 2, M) or (n, B, 2, M) and b (n, B, 2, M); axis 2 is re, im."""
    a_re, a_im, b_re, b_im = a[:, :, 0], a[:, :, 1], b[:, :, 0], b[:, :, 1]
    return jnp.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], axis=2)


def _conjugate_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """conj(a) b."""
    a_re, a_im, b_re, b_im = a[:, :, 0], a[:, :, 1], b[:, :, 0], b[:, :, 1]
    return jnp.stack([a_re * b_re + a_im * b_im, a_re * b_im - a_im * b_re], axis=2)


def _complex_product_transpose(
    saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    da = _conjugate_product(b, g)
    return da if a.shape == b.shape else jnp.sum(da, axis=1, keepdims=True), _conjugate_product(a, g)


_complex_product.defvjp(lambda a, b: (_complex_product(a, b), (a, b)), _complex_product_transpose)


@jax.custom_vjp
def _split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Steps 0, 2, 4, ... and steps 1, 3, 5, ..."""
    return x[::2], x[1::2]


@jax.custom_vjp
def _interleave(first: jax.Array, second: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    n = second.shape[0]
    both = jnp.stack([first[:n], second], axis=1).reshape(2 * n, *second.shape[1:])
    return jnp.concatenate([both, first[n:]])


_split.defvjp(lambda x: (_split(x), None), lambda _, g: (_interleave(*g),))
_interleave.defvjp(lambda first, second: (_interleave(first, second), None), lambda _, g: _split(g))
