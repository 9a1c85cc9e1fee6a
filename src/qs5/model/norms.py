"""Batch and layer normalisation over time-major tensors."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.model.config import ModelConfig

BATCH_EPS = 1e-5
LAYER_EPS = 1e-6


class Norm(eqx.Module):
    """Scale and offset of a norm, and for batch norm its running statistics, each (H,).

    batch:  y = (x - mean) / sqrt(var + 1e-5) * scale + bias, mean and var of a channel over (L, B)
    layer:  y = (x - mean) / sqrt(var + 1e-6) * scale + bias, mean and var of a step over H
    """

    scale: jax.Array
    bias: jax.Array | None
    mean: jax.Array | None
    var: jax.Array | None


class BatchStatistics(NamedTuple):
    """Mean and (biased) variance of each channel over one batch, (H,) each."""

    mean: jax.Array
    var: jax.Array


def init_norm(c: ModelConfig) -> Norm:
    """Identity: scale 1, offset 0, running mean 0 and variance 1."""
    zeros, ones = jnp.zeros(c.H), jnp.ones(c.H)
    batch = c.norm == "batch"
    return Norm(ones, zeros if c.norm_bias else None, zeros if batch else None, ones if batch else None)


def batch_statistics(x: jax.Array) -> BatchStatistics:
    """Statistics of x (L, B, H) per channel; variance as E[x^2] - E[x]^2, as flax has it."""
    mean = jnp.mean(x, axis=(0, 1))
    mean_square = jnp.mean(x * x, axis=(0, 1))
    return BatchStatistics(mean, jnp.maximum(mean_square - mean * mean, 0.0))


def statistics_from_sums(total: jax.Array, squares: jax.Array, count: int) -> BatchStatistics:
    """The same from the sums (H,) of x and of x^2 over `count` steps."""
    mean = total / count
    return BatchStatistics(mean, jnp.maximum(squares / count - mean * mean, 0.0))


def fold(norm: Norm, statistics: BatchStatistics) -> tuple[jax.Array, jax.Array]:
    """Batch norm as one affine map per channel: y = gain x + offset, (H,) each."""
    gain = norm.scale * jax.lax.rsqrt(statistics.var + BATCH_EPS)
    offset = -statistics.mean * gain
    return gain, offset if norm.bias is None else offset + norm.bias


def running(norm: Norm) -> BatchStatistics:
    """The statistics used in evaluation mode. Raises ValueError for a layer norm."""
    if norm.mean is None or norm.var is None:
        raise ValueError("expected a batch norm with running statistics, got a layer norm")
    return BatchStatistics(norm.mean, norm.var)


def layer_norm(x: jax.Array, norm: Norm) -> jax.Array:
    """Layer norm over the last axis; variance as E[x^2] - E[x]^2."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
    y = (x - mean) * (jax.lax.rsqrt(var + LAYER_EPS) * per_channel(norm.scale, x))
    return y if norm.bias is None else y + per_channel(norm.bias, x)


def per_channel(v: jax.Array, x: jax.Array) -> jax.Array:
    """v (H,) with leading axes of length 1, to meet x (..., H) without implicit rank promotion."""
    return v.reshape((1,) * (x.ndim - 1) + v.shape)


def update_running(norm: Norm, batch: BatchStatistics, momentum: float) -> Norm:
    """running <- momentum * running + (1 - momentum) * batch, on mean and variance."""
    old = running(norm)
    new = BatchStatistics(*(momentum * r + (1.0 - momentum) * b for r, b in zip(old, batch, strict=True)))
    return Norm(norm.scale, norm.bias, new.mean, new.var)
