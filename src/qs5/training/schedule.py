"""Learning rate as a function of the step: linear warm-up, then one cosine."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def warmup_cosine(
    *, peak: float, low: float, warmup_steps: int, total_steps: int, official_quirks: bool = False
) -> Schedule:
    """lr(k) for step k = 0, 1, ...

    k < w:   peak (k + 1) / w
    k >= w:  low + (peak - low) (1 + cos(pi s / (N - w))) / 2,  s = k - w

    w warm-up steps, N total steps. With `official_quirks` the official code's s = k (it counts the
    warm-up steps again), held at the end: the rate is `low` for the last w steps.
    """
    w, span = warmup_steps, max(total_steps - warmup_steps, 1)

    def rate(step: jax.Array) -> jax.Array:
        k = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((k if official_quirks else k - w) / span, 0.0, 1.0)
        cosine = low + (peak - low) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(k < w, peak * (k + 1.0) / max(w, 1), cosine)

    return rate
