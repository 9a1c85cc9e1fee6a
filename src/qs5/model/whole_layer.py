"""A residual layer through the native kernel (`qs5.kernels.layer`): from the network's terms to the kernel's.

The network composes a layer from the operations of an `Arithmetic`; a `LayerArithmetic` gets the common
kind of layer (pre-norm, half_glu1, one direction or two) in one piece instead, and hands its weights to `compute`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qs5.kernels import layer as kernel
from qs5.model.config import Gate, Gelu
from qs5.model.discretize import Complex
from qs5.model.norms import (
    LAYER_EPS,
    BatchStatistics,
    Norm,
    batch_statistics,
    fold,
    running,
    statistics_from_sums,
)


class WholeLayer(NamedTuple):
    """A pre-norm layer with the half_glu1 activation, before any quantization. C has columns for each direction.

    Masks are those of the two dropouts, (B, H) or None. Lengths (B,), or None: the norm gives zero past the end of each
    sequence. The rest is named as in the layer's operations.
    """

    norm: Norm
    Lambda_bar: Complex
    B_bar: Complex
    C: Complex
    D: jax.Array
    factor: float
    gate_weight: jax.Array
    gate_bias: jax.Array
    gelu: Gelu
    gate: Gate
    masks: tuple[jax.Array | None, jax.Array | None]
    lengths: jax.Array | None
    x0: jax.Array | None


class Weights(NamedTuple):
    """What the layer multiplies with, quantized or not.

    a (M,), B (H, S), C (S directions, H), D (H,), W (H, H), b (H,).
    """

    a: Complex
    B: jax.Array
    C: jax.Array
    D: jax.Array
    W: jax.Array
    b: jax.Array


class Grids(NamedTuple):
    """Table (sites, 4, width) and which sites it holds for; see `qs5.kernels.layer`."""

    table: jax.Array
    rounded: tuple[bool, ...]


class Computed(NamedTuple):
    """Residual stream (L, B, H) with its statistics, those that the norm used in training, last state (B, S)."""

    value: jax.Array
    statistics: BatchStatistics
    used: BatchStatistics | None
    last: jax.Array


def compute(
    x: jax.Array,
    layer: WholeLayer,
    weights: Weights,
    *,
    known: BatchStatistics | None,
    batch_stats: bool,
    grids: Grids | None = None,
) -> Computed:
    """The layer on x (L, B, H). `known`: statistics of x, if somebody has them."""
    gain, offset, used = _affine(x, layer.norm, known=known, batch_stats=batch_stats)
    first, second = (kernel.no_mask() if m is None else m for m in layer.masks)
    lengths = kernel.no_lengths() if layer.lengths is None else jnp.asarray(layer.lengths, jnp.int32)
    a = jnp.concatenate(weights.a)
    x0 = jnp.zeros((x.shape[1], a.shape[0])) if layer.x0 is None else layer.x0
    table = kernel.no_grids() if grids is None else grids.table
    options = kernel.LayerOptions(
        epsilon=LAYER_EPS if layer.norm.mean is None else None,
        gelu=layer.gelu,
        gate=layer.gate,
        rounded=grids.rounded if grids else (False,) * len(kernel.SITES),
    )
    _, B, C, D, W, b = weights
    arrays = kernel.LayerArrays(x, gain, offset, a, B, C, D, W, b, first, second, lengths, x0, table)
    done = kernel.layer(options, arrays)
    statistics = statistics_from_sums(done.sum, done.sum_square, x.shape[0] * x.shape[1])
    return Computed(done.out, statistics, used, done.last)


def _affine(
    x: jax.Array, norm: Norm, *, known: BatchStatistics | None, batch_stats: bool
) -> tuple[jax.Array, jax.Array, BatchStatistics | None]:
    """Gain and offset of the norm, (H,) each, and the batch's statistics where they were used."""
    if norm.mean is None:
        return norm.scale, jnp.zeros_like(norm.scale) if norm.bias is None else norm.bias, None
    if not batch_stats:
        return *fold(norm, running(norm)), None
    statistics = known or batch_statistics(jax.lax.optimization_barrier(x))
    return *fold(norm, statistics), statistics
