"""Pointwise functions: GELU, sigmoid and the paper's integer-friendly replacements."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from qs5.model.config import Gate, Gelu


def gelu(x: jax.Array) -> jax.Array:
    """GELU, tanh approximation (what flax's default is, hence the official models)."""
    return jax.nn.gelu(x, approximate=True)


def qgelu_gate(x: jax.Array) -> jax.Array:
    """h(x) = min(max(0, x + 2), 4) / 4. Source: Q-S5 section 3.2."""
    return jnp.clip(x + 2.0, 0.0, 4.0) * 0.25


def qgelu(x: jax.Array) -> jax.Array:
    """qGELU(x) = x h(x). Source: Q-S5 section 3.2, figure 3."""
    return x * qgelu_gate(x)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6."""
    return jnp.clip(x + 3.0, 0.0, 6.0) / 6.0


GELUS: dict[Gelu, Callable[[jax.Array], jax.Array]] = {"gelu": gelu, "qgelu": qgelu}
GATES: dict[Gate, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
}
POINTWISE: dict[str, Callable[[jax.Array], jax.Array]] = {**GELUS, **GATES}
