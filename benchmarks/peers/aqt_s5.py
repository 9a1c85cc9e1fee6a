"""Quantization-aware training as the paper's code has it: AQT's products everywhere, also inside the scan's combine.

Typed again from the description of that code (kmheckel/Q-S5 and its fork of S5), on aqtp 0.9; the release that the
code itself needs is gone. The network is written for one sequence and mapped over the batch, so that "per tensor" is
what the mapped function sees. Products of complex numbers are four real ones. The backward pass is quantized too.

With bits None the products are float, and the formulation is the official one.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from qs5.model.discretize import Complex
from qs5.model.network import S5Model
from qs5.model.norms import LAYER_EPS
from qs5.model.operators import hard_sigmoid, qgelu_gate
from qs5.model.ssm import discrete

Bits = int | None


class Dot(Protocol):
    """`lax.dot_general` on quantized operands."""

    def __call__(self, lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> jax.Array: ...


def aqt_dot(bits: Bits) -> Dot:
    """AQT's dot_general, both sides and the backward pass at `bits`, one scale a tensor, range rule of AQT."""
    if bits is None:
        return jax.lax.dot_general
    from aqt.jax.v2 import aqt_dot_general

    dot: Any = aqt_dot_general.dot_general_make(
        lhs_bits=bits, rhs_bits=bits, bwd_bits=bits, use_fwd_quant=True
    )
    for raw in (dot.fwd, dot.dlhs, dot.drhs):
        for side in (raw.dg_quantizer.lhs, raw.dg_quantizer.rhs):
            side.calib_shared_axes = "per_tensor"
            side.numerics.preserve_max_val = False
    return dot


class Products(NamedTuple):
    """The two kinds of products that the network has."""

    dot: Dot

    def matmul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """a (..., n) b (n, m)."""
        return self.dot(a, b, (((a.ndim - 1,), (0,)), ((), ())))

    def times(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Elementwise: every axis is a batch axis."""
        axes = tuple(range(a.ndim))
        return self.dot(a, b, (((), ()), (axes, axes)))

    def complex_times(self, a: Complex, b: Complex) -> Complex:
        """Four real products."""
        re = self.times(a.re, b.re) - self.times(a.im, b.im)
        return Complex(re, self.times(a.re, b.im) + self.times(a.im, b.re))

    def complex_matvec(self, A: Complex, x: Complex) -> Complex:
        """A x, A (n, m), x (m,), as four real products."""
        mat = lambda w, v: self.matmul(v, w.T)  # noqa: E731
        return Complex(mat(A.re, x.re) - mat(A.im, x.im), mat(A.re, x.im) + mat(A.im, x.re))


def logits(model: S5Model, x: jax.Array, *, bits: Bits) -> jax.Array:
    """(B, classes) of real x (B, L, d): qGELU, hard sigmoid, quantized layer norm without bias."""
    products = Products(aqt_dot(bits))
    return jax.vmap(lambda sequence: _sequence(model, sequence, products))(x)


def _sequence(model: S5Model, x: jax.Array, p: Products) -> jax.Array:
    h = p.matmul(x, model.encoder.weight) + model.encoder.bias[None]
    for layer in model.layers:
        h = h + _branch(layer, h, model, p)
    return p.matmul(jnp.mean(h, axis=0), model.decoder.weight) + model.decoder.bias


def _branch(layer: Any, h: jax.Array, model: S5Model, p: Products) -> jax.Array:
    y = _ssm(layer.ssm, _norm(layer.norm, h, p), model, p)
    g = p.times(y, qgelu_gate(y))
    opening = hard_sigmoid(p.matmul(g, layer.gate.weight) + layer.gate.bias[None])
    return p.times(g, opening)


def _norm(norm: Any, x: jax.Array, p: Products) -> jax.Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
    return p.times(x - mean, jax.lax.rsqrt(var + LAYER_EPS) * norm.scale[None])


def _ssm(ssm: Any, u: jax.Array, model: S5Model, p: Products) -> jax.Array:
    """2 Re(C x) + D u; B-bar u, C x and D u are mapped over time, so that each step has its own scales."""
    Lambda_bar, B_bar = discrete(ssm, model.config)
    C = Complex(ssm.C_re, ssm.C_im)
    Bu = jax.vmap(lambda v: p.complex_matvec(B_bar, Complex(v, jnp.zeros_like(v))))(u)
    A = Complex(*(jnp.broadcast_to(part[None], Bu.re.shape) for part in Lambda_bar))

    @jax.vmap
    def combine(i: Any, j: Any) -> Any:
        moved = p.complex_times(j[0], i[1])
        return p.complex_times(j[0], i[0]), Complex(moved.re + j[1].re, moved.im + j[1].im)

    states = jax.lax.associative_scan(combine, (A, Bu))[1]
    y = jax.vmap(lambda re, im: 2.0 * p.complex_matvec(C, Complex(re, im)).re)(*states)
    return y + jax.vmap(lambda v: p.times(ssm.D, v))(u)
