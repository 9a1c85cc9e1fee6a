"""Dynamic quantization of tensors and products, against loops in float64 and closed forms."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.quantization.dynamic_oracle import Quantizer

from qs5.numerics.formats import RangeRule
from qs5.quantization.fake_quant import DynamicFormat, nearest, product, quantize

# float32: a step has a relative error of a few 2^-24, a sum of few products little more.
VALUE_TOLERANCE = 1e-6
PRODUCT_TOLERANCE = 2e-6

RULES: tuple[RangeRule, ...] = ("paper", "aqt")
WIDTHS = (1, 2, 3, 4, 8, 12, 16)


def form(bits: int | None, rule: RangeRule = "aqt", axes: tuple[int, ...] | None = None) -> DynamicFormat:
    return DynamicFormat(bits=bits, rule=rule, axes=axes)


def array(values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


STEP = 0.37


def away_from_ties(rng: np.random.Generator, bits: int, rule: RangeRule) -> tuple[np.ndarray, np.ndarray]:
    """(x, integers): numbers whose step is STEP and that any float32 computation rounds to these integers."""
    high = 2 ** (bits - 1) - 1
    q = rng.integers(-high, high, 60, endpoint=True)
    x = np.clip(q + rng.uniform(-0.45, 0.45, q.shape), -high, high)
    top = high + (0.5 if rule == "aqt" else 0.0)
    return STEP * np.append(x, [top, -top]), np.append(q, [high, -high])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
def test_numbers_made_from_integers_return_to_them(
    bits: int, rule: RangeRule, rng: np.random.Generator
) -> None:
    x, q = away_from_ties(rng, bits, rule)
    got = np.asarray(nearest(array(x), form(bits, rule)))
    np.testing.assert_allclose(got, STEP * q, rtol=VALUE_TOLERANCE)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_nearest_equals_the_definition_in_loops(bits: int, rule: RangeRule, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 5)).astype(np.float32)
    oracle = Quantizer(rule)
    expected = oracle.tensor(x, bits)
    assert oracle.closest > 2.0**bits * 2.0**-23, "the data lies on a tie: choose another"
    np.testing.assert_allclose(nearest(array(x), form(bits, rule)), expected, rtol=VALUE_TOLERANCE)


@pytest.mark.parametrize(
    ("bits", "aqt", "paper"),
    [(8, 0.9961, 1.0), (6, 0.9841, 1.0), (4, 0.9333, 1.0), (2, 0.6667, 1.0), (1, 0.5, 0.5)],
)
def test_what_is_left_of_the_maximum(bits: int, aqt: float, paper: float) -> None:
    for rule, kept in zip(RULES, (paper, aqt), strict=True):
        got = np.asarray(nearest(array([-3.0, 0.1, 3.0]), form(bits, rule)))
        np.testing.assert_allclose(got[[0, 2]], [-3.0 * kept, 3.0 * kept], atol=3 * 5e-5)


@pytest.mark.parametrize(
    ("bits", "rule", "x", "expected"),
    [
        # Ties go to the even integer; step 1.
        (3, "paper", [3.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], [3.0, 0.0, 2.0, 2.0, 0.0, -2.0, -2.0]),
        # Two bits of AQT: {-2/3, 0, 2/3} max, nothing but zero below max/3.
        (2, "aqt", [1.5, 0.51, 0.49, -0.49, -0.51], [1.0, 1.0, 0.0, 0.0, -1.0]),
        # Two bits of the paper: {-1, 0, 1} max, zero below max/2.
        (2, "paper", [1.0, 0.51, 0.49, -0.49, -0.51], [1.0, 1.0, 0.0, 0.0, -1.0]),
        # One bit: two levels, and zero is the upper one.
        (1, "paper", [2.0, 0.1, 0.0, -0.1, -2.0], [1.0, 1.0, 1.0, -1.0, -1.0]),
        (1, "aqt", [2.0, 0.1, 0.0, -0.1, -2.0], [1.0, 1.0, 1.0, -1.0, -1.0]),
        # Zeros: max := 1.
        (8, "aqt", [0.0, 0.0], [0.0, 0.0]),
        (1, "aqt", [0.0, 0.0], [0.5, 0.5]),
        # Below what float32 can divide by.
        (16, "aqt", [1e-37, -1e-39], [0.0, 0.0]),
        (None, "aqt", [1e-37, 0.3], [1e-37, 0.3]),
    ],
)
def test_worked_examples(bits: int | None, rule: RangeRule, x: list[float], expected: list[float]) -> None:
    got = nearest(array(x), form(bits, rule))
    np.testing.assert_allclose(got, array(expected), rtol=VALUE_TOLERANCE, atol=0)


@pytest.mark.parametrize("axes", [None, (-3, -1), (-1,)])
def test_nothing_to_quantize_is_no_error(axes: tuple[int, ...] | None) -> None:
    assert nearest(jnp.zeros((0, 2, 3)), form(8, axes=axes)).shape == (0, 2, 3)


@pytest.mark.parametrize(("axes", "kept"), [(None, ()), ((-1,), (0, 1)), ((-3, -1), (1,))])
def test_entries_share_a_scale_along_the_axes(
    axes: tuple[int, ...] | None, kept: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = (rng.normal(size=(3, 4, 5)) * 2.0 ** rng.integers(-3, 4, (3, 4, 1))).astype(np.float32)
    expected = Quantizer("aqt").groups(x, 4, kept)
    np.testing.assert_allclose(
        nearest(array(x), form(4, axes=axes)), expected, rtol=VALUE_TOLERANCE, atol=1e-7
    )


def vjp_of_product(
    op: Any, a: np.ndarray, b: np.ndarray, g: np.ndarray, *, formats: Any, quantized_backward: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y, da, db) of a product of two float tensors that are quantized first."""

    def forward(a: jax.Array, b: jax.Array) -> jax.Array:
        operands = quantize(a, formats[0]), quantize(b, formats[1])
        return product(op, *operands, quantized_backward=quantized_backward)

    y, pull = jax.vjp(forward, array(a), array(b))
    da, db = pull(array(g))
    return np.asarray(y), np.asarray(da), np.asarray(db)


def test_the_float_gradient_is_that_of_the_quantized_operands(rng: np.random.Generator) -> None:
    a, b, g = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    formats = form(4, "paper", (-1,)), form(2, "aqt")
    y, da, db = vjp_of_product(operator.matmul, a, b, g, formats=formats, quantized_backward=False)
    a_q, b_q = Quantizer("paper").groups(a, 4, (0,)), Quantizer("aqt").tensor(b, 2)
    for got, expected in zip((y, da, db), (a_q @ b_q, g @ b_q.T, a_q.T @ g), strict=True):
        np.testing.assert_allclose(got, expected, rtol=PRODUCT_TOLERANCE, atol=PRODUCT_TOLERANCE)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("widths", [(8, 4), (3, 3), (2, 8), (None, 4)])
def test_the_quantized_gradient_of_a_matrix_product(
    rule: RangeRule, widths: tuple[int | None, int | None], rng: np.random.Generator
) -> None:
    """The steps of the paper's code, one by one: integers, scales, the scale folded into the cotangent."""
    a, b, g = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    Q = Quantizer(rule)
    (a_int, a_step), (b_int, b_step) = (integers(Q, x, bits) for x, bits in zip((a, b), widths, strict=True))
    bits = max(w for w in widths if w is not None)
    da = Q.tensor(g * b_step, bits) @ Q.tensor(b_int, bits).T
    db = Q.tensor(a_int, bits).T @ Q.tensor(g * a_step, bits)
    expected = (a_int @ b_int * a_step * b_step, da, db)
    formats = form(widths[0], rule), form(widths[1], rule)
    got = vjp_of_product(operator.matmul, a, b, g, formats=formats, quantized_backward=True)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=PRODUCT_TOLERANCE, atol=PRODUCT_TOLERANCE)


def integers(Q: Quantizer, x: np.ndarray, bits: int | None) -> tuple[np.ndarray, float]:
    """(integers, step) of a tensor; a float tensor is its own integers."""
    if bits is None:
        return x, 1.0
    step = np.abs(x).max() / (2 ** (bits - 1) - (1.0 if Q.rule == "paper" else 0.5))
    return np.round(Q.tensor(x, bits) / step), step


def test_the_quantized_gradient_of_a_broadcast_product_is_summed_last(rng: np.random.Generator) -> None:
    """u (L, B, H) times D (1, 1, H): every step of every sequence has a cotangent with a scale of its own."""
    u, D, g = rng.normal(size=(3, 2, 4)), rng.normal(size=(1, 1, 4)), rng.normal(size=(3, 2, 4))
    g *= 10.0 ** rng.integers(-2, 2, (3, 2, 1))
    Q = Quantizer("aqt")
    u_q, D_q = Q.groups(u, 8, (0, 1)), Q.tensor(D, 4)
    g_q = Q.groups(g, 8, (0, 1))
    dD = np.zeros(4)
    for k in range(3):
        for n in range(2):
            dD += g_q[k, n] * Q.tensor(u_q[k, n], 8)
    expected = (u_q * D_q, g_q * Q.tensor(D_q, 8), dD[None, None])
    formats = form(8, axes=(-1,)), form(4)
    got = vjp_of_product(operator.mul, u, D, g, formats=formats, quantized_backward=True)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=PRODUCT_TOLERANCE, atol=PRODUCT_TOLERANCE)


def test_a_product_of_float_operands_is_float(rng: np.random.Generator) -> None:
    a, b, g = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    got = vjp_of_product(operator.matmul, a, b, g, formats=(form(None), form(None)), quantized_backward=True)
    for mine, theirs in zip(got, (a @ b, g @ b.T, a.T @ g), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=PRODUCT_TOLERANCE, atol=PRODUCT_TOLERANCE)
