"""One S5 state-space layer: parameters in continuous time, forward pass through an `Arithmetic`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.model import hippo
from qs5.model.arithmetic import Arithmetic, Signal
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex, clip_eigenvalues, discrete_gain, discretize, divide


class SSM(eqx.Module):
    """x' = Lambda x + B u,  y = 2 Re(C x) + D u, diagonal Lambda, one step size a mode.

    The factor 2 stands for the conjugate half that is not stored (conj_sym); without it the factor is 1.
    Complex parameters are pairs of real arrays.
    """

    Lambda_re: jax.Array
    """(M,), 1/time unit."""
    Lambda_im: jax.Array
    """(M,), radians / time unit."""
    B_re: jax.Array
    """(M, H)"""
    B_im: jax.Array
    C_re: jax.Array
    """(H, M), bidirectional (H, 2M): columns of the forward scan, then of the backward scan."""
    C_im: jax.Array
    D: jax.Array
    """(H,)"""
    log_step: jax.Array
    """(M,), Delta = exp(log_step) time units a step."""


def init_ssm(key: jax.Array, c: ModelConfig) -> SSM:
    """HiPPO-N eigenvalues in J blocks, random B, C, D ~ N(0, 1), log step uniform."""
    kB, kC, kD, kstep = jax.random.split(key, 4)
    N = hippo.hippo_n(P=c.P, J=c.J, conj_sym=c.conj_sym)
    B_re, B_im = hippo.init_B(kB, N, c.H)
    C_re, C_im = hippo.init_C(kC, N, c)
    return SSM(
        Lambda_re=jnp.asarray(np.real(N.Lambda), jnp.float32),
        Lambda_im=jnp.asarray(np.imag(N.Lambda), jnp.float32),
        B_re=B_re,
        B_im=B_im,
        C_re=C_re,
        C_im=C_im,
        D=jax.random.normal(kD, (c.H,)),
        log_step=hippo.init_log_step(kstep, c),
    )


def discrete(ssm: SSM, c: ModelConfig) -> tuple[Complex, Complex]:
    """(Lambda-bar (M,), B-bar (M, H)) of a layer."""
    Lambda, Delta = _continuous(ssm, c)
    return discretize(c.discretization, Lambda, Complex(ssm.B_re, ssm.B_im), Delta)


def with_B_bar(ssm: SSM, B_bar: Complex, c: ModelConfig) -> SSM:
    """The layer whose B gives B-bar (M, H) with the eigenvalues and steps that it has."""
    _, gain = discrete_gain(c.discretization, *_continuous(ssm, c))
    B = divide(B_bar, gain)
    return eqx.tree_at(lambda s: (s.B_re, s.B_im), ssm, (B.re, B.im))


def _continuous(ssm: SSM, c: ModelConfig) -> tuple[Complex, jax.Array]:
    """Eigenvalues and step sizes, (M,) each."""
    Lambda = Complex(ssm.Lambda_re, ssm.Lambda_im)
    if c.clip_eigs:
        Lambda = clip_eigenvalues(Lambda)
    return Lambda, c.step_rescale * jnp.exp(ssm.log_step)


def output_factor(c: ModelConfig) -> float:
    """2 where the conjugate half of the states is not stored, else 1."""
    return 2.0 if c.conj_sym else 1.0


class SSMOutput(NamedTuple):
    """Output signal (L, B, H) and the state after the last step (B, S) of the forward scan."""

    signal: Signal
    final_state: jax.Array


def ssm_forward(
    ssm: SSM, u: Signal, *, arithmetic: Arithmetic, c: ModelConfig, name: str, x0: jax.Array | None
) -> SSMOutput:
    """y_k = 2 Re(C x_k) + D u_k with x_k = Lambda-bar x_{k-1} + B-bar u_k; bidirectional: both directions."""
    Lambda_bar, B_bar = discrete(ssm, c)
    Bu = arithmetic.input_projection(f"{name}.Bu", u, B_bar)
    forward = arithmetic.recurrence(f"{name}.state", Lambda_bar, Bu, x0, reverse=False)
    states = (forward,)
    if c.bidirectional:
        states += (arithmetic.recurrence(f"{name}.state_reverse", Lambda_bar, Bu, None, reverse=True),)
    y = arithmetic.output_projection(
        f"{name}.y", states, u, Complex(ssm.C_re, ssm.C_im), ssm.D, factor=output_factor(c)
    )
    return SSMOutput(y, forward.value[-1])
