"""Straight-through estimators: what the backward pass sees of a rounded value."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def replace_value(real: jax.Array, value: jax.Array) -> jax.Array:
    """`value` in the forward pass, the gradient of `real` in the backward pass.

    `real` is then needed for its gradient only; under jit the compiler drops its forward computation.
    """
    return value


replace_value.defvjp(lambda real, value: (value, None), lambda _, g: (g, jnp.zeros_like(g)))


@jax.custom_vjp
def replace_value_inside(real: jax.Array, value: jax.Array, inside: jax.Array) -> jax.Array:
    """As `replace_value`, with gradient 0 where `inside` (bool) is false: where the value saturated."""
    return value


def _inside_forward(real: jax.Array, value: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The barrier keeps XLA's CPU backend from computing these again wherever the gradient needs them.
    return jax.lax.optimization_barrier((value, inside))


replace_value_inside.defvjp(
    _inside_forward, lambda inside, g: (jnp.where(inside, g, 0.0), jnp.zeros_like(g), None)
)


def round_half_up(x: jax.Array) -> jax.Array:
    """floor(x + 1/2): the tie rule of `qs5.numerics.multiplier`, on real numbers."""
    return jnp.floor(x + 0.5)
