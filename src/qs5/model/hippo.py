"""HiPPO-N: the diagonal initial state matrix of S5, and random initial B, C, step sizes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qs5.model.config import ModelConfig


class HippoN(NamedTuple):
    """Eigen-decomposition of block-diagonal HiPPO-N: A = V diag(Lambda) V^-1."""

    Lambda: np.ndarray
    """(M,) complex eigenvalues; with conjugate symmetry one of each pair."""
    V: np.ndarray
    """(P, M) complex eigenvectors as columns."""
    Vinv: np.ndarray
    """(M, P) complex, V^H."""


def hippo_normal(n: int) -> np.ndarray:
    """The normal part S of HiPPO-LegS, (n, n) real.

    A_LegS[i, j] = -sqrt(2i+1) sqrt(2j+1) for i > j, -(i+1) for i = j, else 0;
    S = A_LegS + p p^T with p_i = sqrt(i + 1/2), so that S + 1/2 I is skew-symmetric.
    Source: Gu et al. 2022 (arXiv 2206.11893) and S5 (arXiv 2208.04933), appendix B.1.
    """
    i = np.arange(n)
    q = np.sqrt(2.0 * i + 1.0)
    legs = -np.tril(np.outer(q, q), k=-1) - np.diag(i + 1.0)
    p = np.sqrt(i + 0.5)
    return legs + np.outer(p, p)


def _block_eigen(n: int) -> tuple[np.ndarray, np.ndarray]:
    S = hippo_normal(n)
    # -iS is Hermitian up to the constant real diagonal, so eigh applies and sorts ascending.
    imag, V = np.linalg.eigh(S * -1j)
    return np.mean(np.diagonal(S)) + 1j * imag, V


def hippo_n(*, P: int, J: int, conj_sym: bool) -> HippoN:
    """HiPPO-N of J equal blocks, (P, P) before conjugate symmetry halves the modes.

    With `conj_sym` the first half of each block's ascending eigenvalues is kept: the ones with negative
    imaginary part.
    """
    block = P // J
    Lambda, V = _block_eigen(block)
    keep = block // 2 if conj_sym else block
    Lambda, V = Lambda[:keep], V[:, :keep]
    eye = np.eye(J)
    return HippoN(np.tile(Lambda, J), np.kron(eye, V), np.kron(eye, V.conj().T))


def _parts(z: np.ndarray) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(np.real(z), jnp.float32), jnp.asarray(np.imag(z), jnp.float32)


def init_B(key: jax.Array, hippo: HippoN, H: int) -> tuple[jax.Array, jax.Array]:
    """B = V^-1 B', B' (P, H) LeCun-normal with fan-in P (as the official code has it). Two (M, H) arrays."""
    B = jax.nn.initializers.lecun_normal()(key, (hippo.V.shape[0], H), jnp.float32)
    re, im = _parts(hippo.Vinv)
    return re @ B, im @ B


def init_C(key: jax.Array, hippo: HippoN, c: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """C as two (H, M) arrays, or (H, 2M) when bidirectional (forward scan's columns first).

    `trunc_standard_normal`: variance 1/P, times V.  `lecun_normal`: variance 1/(H P), times V.
    `complex_normal`: real and imaginary part of variance 1/2, used as they are.
    """
    directions = jax.random.split(key, 2 if c.bidirectional else 1)
    re, im = zip(*[_init_C_direction(k, hippo, c) for k in directions], strict=True)
    return jnp.concatenate(re, axis=1), jnp.concatenate(im, axis=1)


def _init_C_direction(key: jax.Array, hippo: HippoN, c: ModelConfig) -> tuple[jax.Array, jax.Array]:
    if c.c_init == "complex_normal":
        re, im = jax.random.normal(key, (2, c.H, c.modes)) * np.sqrt(0.5)
        return re, im
    fan_in = c.P if c.c_init == "trunc_standard_normal" else c.H * c.P
    draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
    # One row of fan-in 1, scaled: the same distribution whatever the official array layout was.
    re, im = draw(key, (1, 2 * c.H * c.P), jnp.float32).reshape(2, c.H, c.P) / np.sqrt(fan_in)
    V_re, V_im = _parts(hippo.V)
    return re @ V_re - im @ V_im, re @ V_im + im @ V_re


def init_log_step(key: jax.Array, c: ModelConfig) -> jax.Array:
    """log Delta ~ U(log dt_min, log dt_max), one step size a mode, (M,)."""
    low, high = np.log(c.dt_min), np.log(c.dt_max)
    return jax.random.uniform(key, (c.modes,), jnp.float32, low, high)
