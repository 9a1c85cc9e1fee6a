"""Losses that training minimizes, one number per example. The only module of `qs5.tasks` that needs JAX.

Axes: B examples, C classes, L time steps, d_out regression outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of the labels: log sum_c exp(z_c) - z_label, in nats.

    logits: (B, C) float z, any additive constant. labels: (B,) integers in 0..C-1. Returns (B,).
    """
    at_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - at_label


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest logit is the label's (the first one among equals), else 0.0.

    logits: (B, C). labels: (B,) integers. Returns (B,) float32; its mean over a split is the accuracy.
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def mse(pred: jax.Array, target: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Mean squared error of each example over its valid steps and its outputs, in the targets' unit squared.

    pred, target: (B, L, d_out) float. lengths: (B,) integers >= 1, or None when all L steps are valid.
    Returns (B,). What `pred` holds in the padding has no effect, on the value or on the gradient.
    """
    if lengths is None:
        return jnp.mean(jnp.square(pred - target), axis=(1, 2))
    valid = jnp.arange(pred.shape[1])[None, :] < lengths[:, None]
    # Masking the difference, not its square: a NaN or inf in the padding must not reach the gradient.
    difference = jnp.where(valid[:, :, None], pred - target, 0.0)
    count = (lengths * pred.shape[2]).astype(pred.dtype)
    return jnp.sum(jnp.square(difference), axis=(1, 2)) / count


SMAPE_FLOOR = 1e-6
"""Smallest |y| + |p| that is divided by: the official code divides by zero where both are 0."""


def smape(pred: jax.Array, target: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Symmetric mean absolute percentage error of each example: 200 mean(|y - p| / (|y| + |p|)), 0 to 200.

    pred, target: (B, L, d_out) float. lengths: (B,) integers >= 1, or None when all L steps are valid. The mean is
    over valid steps and outputs. Returns (B,).

    Source: Q-S5 appendix B.2 as its code has it, a plain mean (its running epsilon(t) is `metrics.smape_running`).
    """
    valid = None if lengths is None else (jnp.arange(pred.shape[1])[None, :] < lengths[:, None])[:, :, None]
    # As in `mse`: nothing of the padding may reach the gradient, so it is masked before it is divided.
    p, y = (v if valid is None else jnp.where(valid, v, 0.0) for v in (pred, target))
    ratio = jnp.abs(y - p) / jnp.maximum(jnp.abs(y) + jnp.abs(p), SMAPE_FLOOR)
    count = pred.shape[1] if lengths is None else lengths.astype(pred.dtype)
    return 200.0 * jnp.sum(ratio, axis=(1, 2)) / (count * pred.shape[2])
