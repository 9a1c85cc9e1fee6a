"""Pointwise functions against their formulas in NumPy."""

import math

import jax.numpy as jnp
import numpy as np

from qs5.model.operators import POINTWISE, gelu, hard_sigmoid, qgelu

# float32 against float64.
TOLERANCE = 1e-6

X = np.linspace(-5, 5, 41).astype(np.float32)
x = jnp.asarray(X)


def test_gelu_is_the_tanh_approximation():
    exact = X.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)
    np.testing.assert_allclose(gelu(x), 0.5 * exact * (1 + np.tanh(inner)), atol=TOLERANCE)


def test_qgelu_is_zero_then_x_with_a_slope_of_a_quarter_between():
    got = np.asarray(qgelu(x))
    np.testing.assert_array_equal(got[X <= -2], 0.0)
    np.testing.assert_array_equal(got[X >= 2], X[X >= 2])
    between = X[(X > -2) & (X < 2)]
    np.testing.assert_array_equal(got[(X > -2) & (X < 2)], between * (between + 2) / 4)


def test_hard_sigmoid_is_relu6_shifted_and_scaled():
    np.testing.assert_allclose(hard_sigmoid(x), np.clip((X + 3.0) / 6.0, 0.0, 1.0), atol=TOLERANCE)


def test_operators_are_found_by_name():
    assert POINTWISE.keys() == {"gelu", "qgelu", "sigmoid", "hard_sigmoid"}
    np.testing.assert_allclose(POINTWISE["sigmoid"](x), 1 / (1 + np.exp(-X)), atol=TOLERANCE)
    assert POINTWISE["qgelu"] is qgelu
