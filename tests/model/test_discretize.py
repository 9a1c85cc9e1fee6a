"""Discretization against closed forms in complex128, and against the differential equation itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import small_model

from qs5.model.config import Discretization
from qs5.model.discretize import Complex, clip_eigenvalues, discretize, divide, multiply
from qs5.model.ssm import discrete

# float32: a few roundings; (Lambda-bar - 1) / Lambda loses digits where |Lambda Delta| is 3e-4.
TOLERANCE = 1e-5
SMALL_STEP_TOLERANCE = 5e-4
# Euler's method with 2^20 steps over one Delta: an error of order |Lambda Delta|^2 / 2^21.
EULER_STEPS = 2**20
EULER_TOLERANCE = 1e-4

Lambda = np.array([-0.5 - 40j, -0.5 - 2j, -1.5 + 7j, -0.3 + 0.1j])
Delta = np.array([1e-3, 0.1, 0.05, 1e-3])
B = np.arange(1, 13).reshape(4, 3) * np.exp(1j * np.arange(12)).reshape(4, 3)


def pair(z: np.ndarray) -> Complex:
    return Complex(jnp.asarray(np.real(z), jnp.float32), jnp.asarray(np.imag(z), jnp.float32))


def complex_of(z: Complex) -> np.ndarray:
    return np.asarray(z.re, np.float64) + 1j * np.asarray(z.im, np.float64)


def discretized(kind: Discretization) -> tuple[np.ndarray, np.ndarray]:
    Lambda_bar, B_bar = discretize(kind, pair(Lambda), pair(B), jnp.asarray(Delta, jnp.float32))
    return complex_of(Lambda_bar), complex_of(B_bar)


def test_zoh_is_its_closed_form():
    Lambda_bar, B_bar = discretized("zoh")
    np.testing.assert_allclose(Lambda_bar, np.exp(Lambda * Delta), rtol=TOLERANCE)
    expected = ((np.exp(Lambda * Delta) - 1) / Lambda)[:, None] * B
    np.testing.assert_allclose(B_bar, expected, rtol=SMALL_STEP_TOLERANCE)


def test_bilinear_is_its_closed_form():
    Lambda_bar, B_bar = discretized("bilinear")
    gain = 1 / (1 - Delta / 2 * Lambda)
    np.testing.assert_allclose(Lambda_bar, gain * (1 + Delta / 2 * Lambda), rtol=TOLERANCE)
    np.testing.assert_allclose(B_bar, (gain * Delta)[:, None] * B, rtol=TOLERANCE)


def test_zoh_is_the_solution_for_an_input_that_is_held():
    """x' = Lambda x + B u with constant u over one Delta, integrated in many small steps."""
    u = np.array([0.5, -1.0, 2.0])
    start = np.array([1.0, 2j, -1 + 1j, 0.5])
    h = Delta / EULER_STEPS
    # n equal Euler steps x <- (1 + h Lambda) x + h B u, summed as a geometric series.
    growth = (1 + h * Lambda) ** EULER_STEPS
    x = growth * start + (growth - 1) / (h * Lambda) * h * (B @ u)
    Lambda_bar, B_bar = discretized("zoh")
    np.testing.assert_allclose(Lambda_bar * start + B_bar @ u, x, rtol=EULER_TOLERANCE)


@pytest.mark.parametrize("kind", ["zoh", "bilinear"])
def test_a_decaying_mode_stays_in_the_unit_disc(kind: Discretization):
    assert (np.abs(discretized(kind)[0]) < 1).all()


def test_clipping_moves_real_parts_only_and_only_those_above():
    clipped = clip_eigenvalues(pair(np.array([0.4 + 3j, -3e-5 - 2j, -1e-4 + 1j, -0.5 - 7j])))
    np.testing.assert_array_equal(clipped.re, np.array([-1e-4, -1e-4, -1e-4, -0.5], np.float32))
    np.testing.assert_array_equal(clipped.im, np.array([3, -2, 1, -7], np.float32))


def test_complex_product_and_quotient():
    a, b = np.array([1 + 2j, -3j, 0.5]), np.array([-2 + 1j, 4 - 1j, 2j])
    np.testing.assert_allclose(complex_of(multiply(pair(a), pair(b))), a * b, rtol=TOLERANCE)
    np.testing.assert_allclose(complex_of(divide(pair(a), pair(b))), a / b, rtol=TOLERANCE)


@pytest.mark.parametrize("clip", [False, True])
def test_a_layer_uses_its_own_step_sizes_rescaled(clip: bool):
    model = small_model(step_rescale=2.0, clip_eigs=clip, discretization="bilinear")
    # Two of the four modes grow.
    growing = jnp.asarray([-0.5, 0.4, -1e-5, 0.1])
    ssm = eqx.tree_at(lambda s: s.Lambda_re, model.layers[0].ssm, growing)
    Lambda_bar, B_bar = discrete(ssm, model.config)
    re = np.minimum(ssm.Lambda_re, -1e-4) if clip else np.asarray(ssm.Lambda_re)
    half = np.exp(np.asarray(ssm.log_step, np.float64)) * (re + 1j * np.asarray(ssm.Lambda_im))
    np.testing.assert_allclose(complex_of(Lambda_bar), (1 + half) / (1 - half), rtol=TOLERANCE)
    gain = 2 * np.exp(np.asarray(ssm.log_step, np.float64)) / (1 - half)
    expected = gain[:, None] * (np.asarray(ssm.B_re) + 1j * np.asarray(ssm.B_im))
    np.testing.assert_allclose(complex_of(B_bar), expected, rtol=TOLERANCE)
