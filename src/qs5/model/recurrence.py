"""The diagonal recurrence x_k = Lambda-bar x_{k-1} + b_k, computed four ways.

Packed arrays: the last axis has length S = 2M, real parts of all modes first, then imaginary parts.

| function           | how                                               | use                               |
|--------------------|---------------------------------------------------|-----------------------------------|
| `scan_native`      | one pass in C++, another one for the gradient     | on CPU                            |
| `scan_sequential`  | lax.scan, gradient by a hand-written reverse scan | on CPU without native kernels     |
| `scan_associative` | parallel prefix over pairs (Lambda-bar, b)        | on GPU and TPU                    |
| `scan_oracle`      | NumPy double loop in complex128                   | tests                             |

All take a carried initial state x_0 (B, S) and give all states (L, B, S).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qs5.kernels import native
from qs5.kernels.scan import ScanArrays, scan
from qs5.model.discretize import Complex

StepQuantizer = Callable[[jax.Array, tuple[jax.Array, ...]], jax.Array]


def rotate(a_re: jax.Array, a_im: jax.Array, x: jax.Array) -> jax.Array:
    """Complex product a x for packed x (..., S) and a (1, M)."""
    M = a_re.shape[-1]
    re, im = x[..., :M], x[..., M:]
    return jnp.concatenate([a_re * re - a_im * im, a_re * im + a_im * re], axis=-1)


def keep(x: jax.Array, _: tuple[jax.Array, ...]) -> jax.Array:
    """The step quantizer of a float state: nothing."""
    return x


def scan_sequential(
    a: Complex,
    b: jax.Array,
    x0: jax.Array | None = None,
    *,
    reverse: bool = False,
    quantize: StepQuantizer = keep,
    parameters: tuple[jax.Array, ...] = (),
) -> jax.Array:
    """x_k = Q(a x_{k-1} + b_k) for k = 1..L (from the end with `reverse`), all states (L, B, S).

    `quantize(x, parameters)` is applied to the state at every step; its gradient is taken as the identity
    (straight-through), and `parameters` get none. It is a static argument, hence a module-level function.
    """
    a_re, a_im = (jnp.broadcast_to(v[None, :], (1, v.shape[0])) for v in a)
    if x0 is None:
        x0 = jnp.zeros_like(b[0])
    return _sequential(a_re, a_im, b, x0, parameters, reverse, quantize)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _sequential(a_re, a_im, b, x0, parameters, reverse, quantize):
    def step(x: jax.Array, b_k: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = quantize(rotate(a_re, a_im, x) + b_k, parameters)
        return x, x

    return lax.scan(step, x0, b, reverse=reverse)[1]


def _sequential_forward(a_re, a_im, b, x0, parameters, reverse, quantize):
    xs = _sequential(a_re, a_im, b, x0, parameters, reverse, quantize)
    return xs, (a_re, a_im, xs, x0, parameters)


def _sequential_backward(reverse, quantize, saved, g):
    a_re, a_im, xs, x0, parameters = saved
    d_re, d_im, d_b, d_x0 = reverse_scan(a_re, a_im, xs, x0, g, reverse=reverse)
    return d_re, d_im, d_b, d_x0, jax.tree.map(jnp.zeros_like, parameters)


_sequential.defvjp(_sequential_forward, _sequential_backward)


def reverse_scan(
    a_re: jax.Array, a_im: jax.Array, xs: jax.Array, x0: jax.Array, g: jax.Array, *, reverse: bool
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Gradient of the recurrence: (d a_re, d a_im, d b, d x0) from states xs and their cotangents g.

    mu_k = g_k + conj(a) mu_{k+1};   d b_k = mu_k;   d a = sum_k conj(x_{k-1}) mu_k;   d x0 = conj(a) mu_1.

    The sum is formed one step late, as conj(x_k) mu_{k+1}, where mu_{k+1} is still in the carry: no shifted
    copy of the states is needed.
    """
    M = a_re.shape[-1]

    def correlate(x: jax.Array, mu: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_re, x_im, m_re, m_im = x[:, :M], x[:, M:], mu[:, :M], mu[:, M:]
        return x_re * m_re + x_im * m_im, x_re * m_im - x_im * m_re

    def step(carry, inputs):
        mu, s_re, s_im = carry
        x_k, g_k = inputs
        d_re, d_im = correlate(x_k, mu)
        mu = g_k + rotate(a_re, -a_im, mu)
        return (mu, s_re + d_re, s_im + d_im), mu

    zero = jnp.zeros_like(x0[:, :M])
    start = (jnp.zeros_like(x0), zero, zero)
    (mu, s_re, s_im), d_b = lax.scan(step, start, (xs, g), reverse=not reverse)
    d_re, d_im = correlate(x0, mu)
    total_re = jnp.sum(s_re + d_re, axis=0, keepdims=True)
    total_im = jnp.sum(s_im + d_im, axis=0, keepdims=True)
    return total_re, total_im, d_b, rotate(a_re, -a_im, mu)


def scan_native(
    a: Complex,
    b: jax.Array,
    x0: jax.Array | None = None,
    *,
    reverse: bool = False,
    step: jax.Array | None = None,
    high: float = 1.0,
) -> jax.Array:
    """`scan_sequential` in C++. With `step` (S,), powers of two, every state is rounded to codes in -high..high
    times its step, straight-through."""
    arrays = ScanArrays(
        a=jnp.concatenate(a),
        v=b,
        x0=jnp.zeros_like(b[0]) if x0 is None else x0,
        step=jnp.zeros((0,)) if step is None else step,
        high=jnp.full((1,), high, jnp.float32),
    )
    return scan(reverse, arrays)


def scan_associative(
    a: Complex, b: jax.Array, x0: jax.Array | None = None, *, reverse: bool = False
) -> jax.Array:
    """The same states by a parallel prefix: (a_i, b_i) o (a_j, b_j) = (a_j a_i, a_j b_i + b_j).

    Source: S5 (arXiv 2208.04933) section 2.2 and appendix H; lindermanlab/S5 `apply_ssm`.
    """
    L, _, S = b.shape
    if x0 is not None:
        first = -1 if reverse else 0
        b = b.at[first].add(rotate(a.re[None, :], a.im[None, :], x0))
    z = lax.complex(b[..., : S // 2], b[..., S // 2 :])
    A = jnp.broadcast_to(lax.complex(a.re, a.im)[None, None, :], (L, 1, S // 2))

    def combine(i, j):
        return j[0] * i[0], j[0] * i[1] + j[1]

    x = lax.associative_scan(combine, (A, z), reverse=reverse)[1]
    return jnp.concatenate([x.real, x.imag], axis=-1)


def scan_oracle(
    a: np.ndarray, b: np.ndarray, x0: np.ndarray | None = None, *, reverse: bool = False
) -> np.ndarray:
    """The definition, one mode and one step at a time. a (M,), b (L, B, M), x0 (B, M), complex; NumPy."""
    L, batch, M = b.shape
    x = np.zeros((L, batch, M), np.complex128)
    for n in range(batch):
        for m in range(M):
            state = 0.0 if x0 is None else x0[n, m]
            for k in reversed(range(L)) if reverse else range(L):
                state = a[m] * state + b[k, n, m]
                x[k, n, m] = state
    return x


def default_scan(dtype: jnp.dtype = jnp.dtype(jnp.float32)) -> Callable[..., jax.Array]:  # noqa: B008
    """On CPU `scan_native` where it exists (float32), else `scan_sequential`; else `scan_associative`."""
    if dtype == jnp.float32 and native.available():
        return scan_native
    return scan_sequential if jax.default_backend() == "cpu" else scan_associative
