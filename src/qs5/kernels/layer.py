"""One residual S5 layer as one call, with its gradient.

    u_k = gain x_k + offset            (batch norm, folded; or layer norm with that gain and offset)
    s_k = a s_{k-1} + u_k B            a s: complex product of every mode, packed re, im
    y   = s C + D u
    g   = m1 gelu(y)
    out = x + m2 g gate(g W + b)

A layer with two directions has the states r_k = a r_{k+1} + u_k B, from 0 behind the last step, as well, and
y = [s, r] C + D u. Where sequences have lengths, u_k = 0 from the end of each one on.

In between values may be rounded to power-of-two grids, with straight-through gradients, as
`qs5.quantization.static` does it in its simulated mode. Only x, the states, y and z = g W + b are kept for the
gradient; everything else is computed again there.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SITES = (
    "norm", "Bu", "state", "state_out", "state_reverse", "state_reverse_out",
    "y", "gelu", "gate", "sigmoid", "product", "residual",
)  # fmt: skip
"""Where a value may be rounded, in the order of the forward pass: rows of `LayerArrays.grids`."""
GELUS = ("gelu", "qgelu")
GATES = ("sigmoid", "hard_sigmoid")
FLAGS = 16
"""Flags of a half of a packed state come in multiples of this, as `flags_of` in native/kernels/kernels.h has it."""
CONSTANTS = ("m1", "m2", "lengths", "grids")
"""Arrays without a gradient."""


class LayerOptions(NamedTuple):
    """What is fixed when compiling."""

    epsilon: float | None
    """Of the layer norm; None: batch norm."""
    gelu: str
    gate: str
    rounded: tuple[bool, ...] = (False,) * len(SITES)
    """Which sites have a grid."""


class LayerArrays(NamedTuple):
    """float32 but for the lengths. L time, B batch, H features, S = 2M packed states of one direction."""

    x: jax.Array
    """(L, B, H)"""
    gain: jax.Array
    """(H,)"""
    offset: jax.Array
    """(H,)"""
    a: jax.Array
    """(S,)"""
    B: jax.Array
    """(H, S)"""
    C: jax.Array
    """(S, H), or (2S, H) for two directions; meets integer codes where `state_out` is rounded."""
    D: jax.Array
    """(H,)"""
    W: jax.Array
    """(H, H)"""
    b: jax.Array
    """(H,)"""
    m1: jax.Array
    """(B, H), or (0, 0): no dropout. No gradient."""
    m2: jax.Array
    lengths: jax.Array
    """int32 (B,), or (0,): all sequences have L steps. No gradient."""
    x0: jax.Array
    """(B, S), state s before the first step."""
    grids: jax.Array
    """(sites, 4, width): inverse step, step, lowest code, highest code. No gradient."""


class LayerResult(NamedTuple):
    """Output (L, B, H), the sums of it and of its square over time and batch (H,), last state s (B, S)."""

    out: jax.Array
    sum: jax.Array
    sum_square: jax.Array
    last: jax.Array


def no_mask() -> jax.Array:
    """The mask of a layer without dropout."""
    return jnp.zeros((0, 0))


def no_lengths() -> jax.Array:
    """The lengths of sequences that all have L steps."""
    return jnp.zeros(0, jnp.int32)


def no_grids() -> jax.Array:
    """The grids of a float layer."""
    return jnp.zeros((0, 0, 0))


def layer(options: LayerOptions, arrays: LayerArrays) -> LayerResult:
    """The layer described at the top of this module."""
    return LayerResult(*_layer(options, arrays))  # pyright: ignore[reportGeneralTypeIssues]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(options: LayerOptions, arrays: LayerArrays) -> LayerResult:
    return LayerResult(*_forward(options, arrays, save=False)[:4])


def _attributes(options: LayerOptions) -> dict[str, Any]:
    return {
        "layer_norm": options.epsilon is not None,
        "epsilon": np.float32(options.epsilon or 0.0),
        "gelu": np.int64(GELUS.index(options.gelu)),
        "gate": np.int64(GATES.index(options.gate)),
        "rounded": np.int64(sum(1 << i for i, on in enumerate(options.rounded) if on)),
    }


def _forward(options: LayerOptions, arrays: LayerArrays, *, save: bool) -> tuple[jax.Array, ...]:
    """out, sum, sum_square, last, and what the gradient needs: states, y, z, inside (empty if not saved)."""
    check_shapes(arrays)
    (L, batch, H), S = arrays.x.shape, arrays.a.shape[0]
    real = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    directions = arrays.C.shape[0] // S
    features, states = ((L, batch, H), (directions, L, batch, S)) if save else ((0,), (0,))
    flags = 2 * FLAGS * math.ceil(S / 2 / FLAGS)
    inside = (L, batch, flags) if save and options.rounded[SITES.index("Bu")] else (0,)
    results = (
        *(real(shape) for shape in ((L, batch, H), (H,), (H,), (batch, S), states, features, features)),
        jax.ShapeDtypeStruct(inside, jnp.uint8),
    )
    call = jax.ffi.ffi_call("qs5_layer_forward", results, vmap_method="sequential")
    return tuple(call(*arrays, **_attributes(options)))


def _layer_forward(options: LayerOptions, arrays: LayerArrays) -> tuple[LayerResult, Any]:
    results = _forward(options, arrays, save=True)
    return LayerResult(*results[:4]), (arrays, results[4:])


def _layer_backward(options: LayerOptions, kept: Any, g: LayerResult) -> tuple[LayerArrays]:
    arrays, saved = kept
    wanted = [(name, v) for name, v in arrays._asdict().items() if name not in CONSTANTS]
    results = tuple(jax.ShapeDtypeStruct(v.shape, jnp.float32) for _, v in wanted)
    call = jax.ffi.ffi_call("qs5_layer_backward", results, vmap_method="sequential")
    d = call(*arrays, *saved, *g, **_attributes(options))
    gradients = dict(zip((name for name, _ in wanted), d, strict=True))
    # Masks, lengths and grids are constants of the layer.
    constants = {name: jnp.zeros_like(getattr(arrays, name)) for name in CONSTANTS}
    return (LayerArrays(**gradients, **constants),)


_layer.defvjp(_layer_forward, _layer_backward)


def check_shapes(arrays: LayerArrays) -> None:
    """Raises ValueError where an array does not fit: the kernel itself trusts what it gets."""
    (_, batch, H), S = arrays.x.shape, arrays.a.shape[0]
    mask = {(0, 0), (batch, H)}
    expected: dict[str, set[tuple[int, ...]]] = {
        "gain": {(H,)}, "offset": {(H,)}, "a": {(S,)}, "B": {(H, S)}, "C": {(S, H), (2 * S, H)}, "D": {(H,)},
        "W": {(H, H)}, "b": {(H,)}, "m1": mask, "m2": mask,
        "lengths": {(0,), (batch,)}, "x0": {(batch, S)},
        "grids": {(0, 0, 0), (len(SITES), 4, max(H, S))},
    }  # fmt: skip
    for name, shapes in expected.items():
        array = getattr(arrays, name)
        dtype = "int32" if name == "lengths" else "float32"
        if array.shape not in shapes or array.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype} {sorted(shapes)}, got {array.dtype} {array.shape}")
    if arrays.x.dtype != jnp.float32 or S % 2:
        raise ValueError(f"expected float32 x and an even S, got {arrays.x.dtype} and {S}")
