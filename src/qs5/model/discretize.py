"""Continuous time to steps: Lambda, B, Delta -> Lambda-bar, B-bar, in real arithmetic.

Complex numbers are kept as pairs of real arrays throughout: optimisers then need no care with conjugates,
and every real array is a site that can be quantized.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qs5.model.config import Discretization

CLIP_REAL_PART = -1e-4


class Complex(NamedTuple):
    """A complex array as two real ones of the same shape."""

    re: jax.Array
    im: jax.Array


def clip_eigenvalues(Lambda: Complex) -> Complex:
    """Re(Lambda) <= -1e-4: the continuous system decays."""
    return Complex(jnp.minimum(Lambda.re, CLIP_REAL_PART), Lambda.im)


def discretize(
    kind: Discretization, Lambda: Complex, B: Complex, Delta: jax.Array
) -> tuple[Complex, Complex]:
    """(Lambda-bar (M,), B-bar (M, H)) for Lambda (M,), B (M, H), step sizes Delta (M,).

    zoh:       Lambda-bar = exp(Lambda Delta),  B-bar = (Lambda-bar - 1) / Lambda * B
    bilinear:  G = 1 / (1 - Delta/2 Lambda),    Lambda-bar = G (1 + Delta/2 Lambda),  B-bar = G Delta * B
    Source: S5 (arXiv 2208.04933) section 2, equation 6; Q-S5 section 2.1.
    """
    Lambda_bar, column = discrete_gain(kind, Lambda, Delta)
    return Lambda_bar, multiply(column, B)


def discrete_gain(kind: Discretization, Lambda: Complex, Delta: jax.Array) -> tuple[Complex, Complex]:
    """(Lambda-bar (M,), g (M, 1)) with B-bar = g B."""
    Lambda_bar, gain = (_zoh if kind == "zoh" else _bilinear)(Lambda, Delta)
    return Lambda_bar, Complex(gain.re[:, None], gain.im[:, None])


def _zoh(Lambda: Complex, Delta: jax.Array) -> tuple[Complex, Complex]:
    modulus = jnp.exp(Lambda.re * Delta)
    angle = Lambda.im * Delta
    Lambda_bar = Complex(modulus * jnp.cos(angle), modulus * jnp.sin(angle))
    return Lambda_bar, divide(Complex(Lambda_bar.re - 1.0, Lambda_bar.im), Lambda)


def _bilinear(Lambda: Complex, Delta: jax.Array) -> tuple[Complex, Complex]:
    half = Complex(0.5 * Delta * Lambda.re, 0.5 * Delta * Lambda.im)
    one = Complex(jnp.ones_like(Delta), jnp.zeros_like(Delta))
    G = divide(one, Complex(1.0 - half.re, -half.im))
    return multiply(G, Complex(1.0 + half.re, half.im)), Complex(G.re * Delta, G.im * Delta)


def multiply(a: Complex, b: Complex) -> Complex:
    """Complex product of two pairs."""
    return Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def divide(a: Complex, b: Complex) -> Complex:
    """Complex quotient a / b of two pairs."""
    norm = b.re * b.re + b.im * b.im
    return Complex((a.re * b.re + a.im * b.im) / norm, (a.im * b.re - a.re * b.im) / norm)
