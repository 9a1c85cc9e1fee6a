"""The diagonal recurrence s_k = Q(a s_{k-1} + v_k), one pass forward and one for the gradient."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ScanArrays(NamedTuple):
    """float32. L time, B batch, S = 2M packed states."""

    a: jax.Array
    """(S,)"""
    v: jax.Array
    """(L, B, S)"""
    x0: jax.Array
    """(B, S)"""
    step: jax.Array
    """(S,), powers of two: Q(x) = clip(floor(x / step + 1/2), -high, high) step. (0,): Q(x) = x. No gradient."""
    high: jax.Array
    """(1,), largest code. No gradient."""


def scan(reverse: bool, arrays: ScanArrays) -> jax.Array:
    """All states (L, B, S); from the end with `reverse`. Q is straight-through: its gradient is the identity."""
    return jnp.asarray(_scan(reverse, arrays))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(reverse: bool, arrays: ScanArrays) -> jax.Array:
    check_shapes(arrays)
    result = jax.ShapeDtypeStruct(arrays.v.shape, jnp.float32)
    return jax.ffi.ffi_call("qs5_scan_forward", result, vmap_method="sequential")(*arrays, reverse=reverse)


def _scan_forward(reverse: bool, arrays: ScanArrays) -> tuple[Any, Any]:
    states = _scan(reverse, arrays)
    return states, (arrays._replace(v=jnp.zeros((0,))), states)


def _scan_backward(reverse: bool, kept: Any, g: jax.Array) -> tuple[ScanArrays]:
    arrays, states = kept
    results = tuple(jax.ShapeDtypeStruct(v.shape, jnp.float32) for v in (g, arrays.a, arrays.x0))
    call = jax.ffi.ffi_call("qs5_scan_backward", results, vmap_method="sequential")
    d_v, d_a, d_x0 = call(arrays.a, states, arrays.x0, g, reverse=reverse)
    return (ScanArrays(d_a, d_v, d_x0, jnp.zeros_like(arrays.step), jnp.zeros_like(arrays.high)),)


_scan.defvjp(_scan_forward, _scan_backward)


def check_shapes(arrays: ScanArrays) -> None:
    """Raises ValueError where an array does not fit: the kernel itself trusts what it gets."""
    _, batch, S = arrays.v.shape
    fits = (
        arrays.a.shape == (S,)
        and arrays.x0.shape == (batch, S)
        and arrays.step.shape in {(0,), (S,)}
        and arrays.high.shape == (1,)
    )
    if not fits or S % 2 or any(v.dtype != jnp.float32 for v in arrays):
        shapes = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in arrays._asdict().items())
        raise ValueError(f"expected float32 a (S,), v (L, B, S), x0 (B, S), step (S,) or (0,), got {shapes}")
