"""Our dynamic quantization against AQT, which the paper's code calls: products, gradients, the whole scan.

The paper's code needs a release of AQT that is gone; `per_tensor` is how the present one spells its mode.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aqt.jax.v2 import aqt_dot_general
from tests.grades import graded

from qs5.model.discretize import Complex
from qs5.numerics.formats import RangeRule
from qs5.quantization.dynamic_scan import ScanFormat, quantized_scan
from qs5.quantization.fake_quant import DynamicFormat, product, quantize

# float32 on both sides; AQT multiplies integers first and by the steps last.
PRODUCT_TOLERANCE = 2e-6
SCAN_TOLERANCE = 1e-5

RULES: tuple[RangeRule, ...] = ("paper", "aqt")
Widths = tuple[int | None, int | None]
DotGeneral = Callable[[jax.Array, jax.Array, Any], jax.Array]


def aqt_of(widths: Widths, rule: RangeRule) -> DotGeneral:
    """AQT's dot_general as the paper's code has it: per tensor, backward pass at max(widths)."""
    lhs, rhs = widths
    bwd = max(w for w in widths if w is not None)
    # This also sets int32 as accumulator where both sides have 2 to 8 bits; int8 would wrap.
    dot = aqt_dot_general.dot_general_make(lhs_bits=lhs, rhs_bits=rhs, bwd_bits=bwd, use_fwd_quant=True)
    for raw in (dot.fwd, dot.dlhs, dot.drhs):
        quantizer: Any = raw.dg_quantizer
        for side in (quantizer.lhs, quantizer.rhs):
            side.calib_shared_axes = "per_tensor"
            if hasattr(side.numerics, "preserve_zero") and side.numerics.preserve_zero:
                # At one bit this would map max|x| to 1/2, and the paper's rule divides by zero.
                side.numerics.preserve_max_val = rule == "paper"
    return dot


def multiply_by(dot: DotGeneral) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Elementwise product: every axis is a batch axis."""
    return lambda a, b: dot(a, b, (((), ()), (tuple(range(a.ndim)), tuple(range(b.ndim)))))


def assert_all_close(got: Any, expected: Any, tolerance: float) -> None:
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def value_and_cotangents(f: Any, args: Any, g: Any) -> tuple[Any, Any]:
    y, pull = jax.vjp(f, *args)
    return y, pull(g)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("widths", [(2, 2), (4, 4), (8, 8), (4, 8), (8, 2), (16, 8), (1, 8), (None, 8)])
def test_matrix_products_and_their_quantized_gradients(
    widths: Widths, rule: RangeRule, rng: np.random.Generator
) -> None:
    a, b, g = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((5, 7), (7, 3), (5, 3)))
    dot = aqt_of(widths, rule)
    formats = [DynamicFormat(bits=w, rule=rule) for w in widths]

    def ours(a: jax.Array, b: jax.Array) -> jax.Array:
        operands = (quantize(x, f) for x, f in zip((a, b), formats, strict=True))
        return product(jnp.matmul, *operands, quantized_backward=True)

    expected = value_and_cotangents(lambda a, b: dot(a, b, (((1,), (0,)), ((), ()))), (a, b), g)
    assert_all_close(value_and_cotangents(ours, (a, b), g), expected, PRODUCT_TOLERANCE)
    if None not in widths and min(widths) < 8:  # type: ignore[type-var]
        assert float(jnp.abs(expected[0] - a @ b).max()) > 0.1


@pytest.mark.parametrize("widths", graded([((4, 8),), ((8, 8),), ((2, 8),)], quick=1, slow=2))
def test_the_scan_and_its_quantized_gradients(widths: tuple[int, int], rng: np.random.Generator) -> None:
    """The combine of the paper's code, mapped over steps and over sequences, which share Lambda-bar.

    AQT fails on empty slices, which lengths other than 2^n - 1 would have.
    """
    L, B, M = 7, 3, 5
    a = 0.95 * np.exp(1j * rng.uniform(0.1, 3.0, M))
    inputs = [jnp.asarray(v, jnp.float32) for v in (np.real(a), np.imag(a), *rng.normal(size=(2, L, B, M)))]
    g = jnp.asarray(rng.normal(size=(L, B, 2 * M)), jnp.float32)
    by_powers, by_states = (
        multiply_by(aqt_of((widths[0], widths[0]), "aqt")),
        multiply_by(aqt_of(widths, "aqt")),
    )

    def star(multiply: Any, p: Complex, q: Complex) -> Complex:
        re = multiply(p.re, q.re) - multiply(p.im, q.im)
        return Complex(re, multiply(p.re, q.im) + multiply(p.im, q.re))

    @jax.vmap
    def combine(i: Any, j: Any) -> Any:
        moved = star(by_states, j[0], i[1])
        return star(by_powers, j[0], i[0]), Complex(moved.re + j[1].re, moved.im + j[1].im)

    def theirs(a_re: jax.Array, a_im: jax.Array, b_re: jax.Array, b_im: jax.Array) -> jax.Array:
        A = Complex(*(jnp.broadcast_to(v[None], (L, M)) for v in (a_re, a_im)))

        def one_sequence(b_re: jax.Array, b_im: jax.Array) -> jax.Array:
            states = jax.lax.associative_scan(combine, (A, Complex(b_re, b_im)))[1]
            return jnp.concatenate(states, axis=-1)

        return jax.vmap(one_sequence, in_axes=1, out_axes=1)(b_re, b_im)

    format = ScanFormat(a_bits=widths[0], state_bits=widths[1], rule="aqt", quantized_backward=True)

    def ours(a_re: jax.Array, a_im: jax.Array, b_re: jax.Array, b_im: jax.Array) -> jax.Array:
        b = jnp.concatenate([b_re, b_im], axis=-1)
        return quantized_scan(Complex(a_re, a_im), b, None, format=format, reverse=False)

    run = jax.jit(value_and_cotangents, static_argnums=0)
    assert_all_close(run(ours, inputs, g), run(theirs, inputs, g), SCAN_TOLERANCE)
