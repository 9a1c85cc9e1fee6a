"""The recurrence x_k = a x_{k-1} + b_k as a prefix tree with quantized products, and its gradient.

What the paper trains with. The same in JAX, with the equations: `qs5.quantization.dynamic_scan`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 16
"""Sequences side by side in what the forward pass keeps: kPrefixBlock in native/kernels/kernels.h."""


class PrefixGrid(NamedTuple):
    """Grid of an operand: its step is max|x| / edge over the modes of one node and sequence, re and im apart."""

    bits: int = 0
    """0: the operand stays as it is."""
    edge: float = 1.0
    """The place of max|x| on the grid, in steps."""


class PrefixOptions(NamedTuple):
    """What is fixed when compiling. The last two are of the gradient: both operands, rounded once more, and the
    cotangent of a product with a state, and of one of two powers of a."""

    reverse: bool
    a: PrefixGrid
    state: PrefixGrid
    back: PrefixGrid
    a_back: PrefixGrid


def prefix(options: PrefixOptions, a: jax.Array, b: jax.Array) -> jax.Array:
    """All states (L, B, S) for a (S,) and b (L, B, S), float32, packed re, im; from the end with `reverse`.

    Rounding is straight-through: the gradient is that of the products of what was rounded.
    """
    return jnp.asarray(_prefix(options, a, b))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _prefix(options: PrefixOptions, a: jax.Array, b: jax.Array) -> jax.Array:
    return _forward(options, a, b, save=False)[0]


def _forward(
    options: PrefixOptions, a: jax.Array, b: jax.Array, *, save: bool
) -> tuple[jax.Array, jax.Array]:
    """States, and what the gradient needs: every element of the tree and the states, (blocks, ..., S, BLOCK)."""
    check_shapes(a, b)
    L, batch, S = b.shape
    kept = (-(-batch // BLOCK), rows_of(L) + L, S, BLOCK) if save else (0,)
    results = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (b.shape, kept))
    call = jax.ffi.ffi_call("qs5_prefix_forward", results, vmap_method="sequential")
    states, saved = call(a, b, reverse=options.reverse, **_attributes(a=options.a, state=options.state))
    return states, saved


def _prefix_forward(options: PrefixOptions, a: jax.Array, b: jax.Array) -> tuple[jax.Array, Any]:
    states, kept = _forward(options, a, b, save=True)
    return states, (a, kept)


def _prefix_backward(options: PrefixOptions, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, kept = saved
    results = tuple(jax.ShapeDtypeStruct(v.shape, jnp.float32) for v in (a, g))
    call = jax.ffi.ffi_call("qs5_prefix_backward", results, vmap_method="sequential")
    grids = {name: getattr(options, name) for name in ("a", "state", "back", "a_back")}
    d_a, d_b = call(a, kept, g, reverse=options.reverse, **_attributes(**grids))
    return d_a, d_b


_prefix.defvjp(_prefix_forward, _prefix_backward)


def _attributes(**grids: PrefixGrid) -> dict[str, Any]:
    bits = {f"{name}_bits": np.int64(grid.bits) for name, grid in grids.items()}
    return bits | {f"{name}_edge": np.float32(grid.edge) for name, grid in grids.items()}


def rows_of(L: int) -> int:
    """Elements on all levels of the tree over L steps: L + L // 2 + L // 4 + ..."""
    return sum(L >> level for level in range(L.bit_length()))


def check_shapes(a: jax.Array, b: jax.Array) -> None:
    """Raises ValueError where an array does not fit: the kernel itself trusts what it gets."""
    fits = b.ndim == 3 and b.shape[0] > 0 and a.shape == b.shape[2:] and a.shape[0] % 2 == 0
    if not fits or a.dtype != jnp.float32 or b.dtype != jnp.float32:
        raise ValueError(
            f"expected float32 a (S,), S even, and b (L, B, S), L > 0, got {a.dtype} {a.shape}, {b.dtype} {b.shape}"
        )
