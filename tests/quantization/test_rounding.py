"""Least squares against numpy's, codes against every single change, and steps that are found again."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from qs5.numerics.formats import QFormat
from qs5.quantization.rounding import Rounded, descend, error, fitted, least_squares, nearest
from qs5.quantization.weights import quantize_weight

RNG = np.random.default_rng(5)


def _problem(*front: int, I: int = 6, O: int = 3) -> tuple[np.ndarray, np.ndarray]:  # noqa: E741
    """Weights and the moments of correlated inputs."""
    X = RNG.normal(size=(*front, 40, I)) @ RNG.normal(size=(*front, I, I)) + 0.5
    return RNG.normal(size=(*front, I, O)), np.swapaxes(X, -1, -2) @ X / 40


def test_least_squares_is_the_solution_of_the_stacked_system() -> None:
    X, Y, W = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 3)), RNG.normal(size=(6, 3))
    pull = 0.3
    anchors = np.sqrt(pull * np.mean(X**2, axis=0)) * np.sqrt(50)
    stacked = np.concatenate([X, np.diag(anchors)]), np.concatenate([Y, anchors[:, None] * W])
    expected = np.linalg.lstsq(*stacked, rcond=None)[0]
    got = least_squares(W, X.T @ X / 50, X.T @ Y / 50, pull=pull)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def test_complex_least_squares_finds_the_weight_that_made_the_data() -> None:
    S = RNG.normal(size=(2, 50, 4)) + 1j * RNG.normal(size=(2, 50, 4))
    B = RNG.normal(size=(2, 4, 1)) + 1j * RNG.normal(size=(2, 4, 1))
    adjoint = np.conj(np.swapaxes(S, -1, -2))
    got = least_squares(np.zeros_like(B), adjoint @ S, adjoint @ (S @ B), pull=1e-9)
    np.testing.assert_allclose(got, B, atol=1e-6)


def test_a_dead_input_keeps_its_weight() -> None:
    W, gram = _problem()
    gram[2] = gram[:, 2] = 0.0
    got = least_squares(W, gram, gram @ RNG.normal(size=W.shape), pull=0.01)
    np.testing.assert_allclose(got[2], W[2], atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_single_code_could_be_better(bits: int) -> None:
    W, gram = _problem()
    high = QFormat(bits).high
    found = descend(W, gram, nearest(W, bits=bits), high=high)
    least = error(found, W, gram)[0]
    for i, o in itertools.product(range(6), range(3)):
        for code in range(-high, high + 1):
            codes = found.codes.copy()
            codes[i, o] = code
            assert error(Rounded(codes, found.step), W, gram)[0, o] >= least[o] * (1 - 1e-9)


def test_the_error_is_that_of_the_outputs() -> None:
    X, W = RNG.normal(size=(30, 6)), RNG.normal(size=(6, 3))
    rounded = nearest(W, bits=3)
    expected = np.mean(np.square(X @ (rounded.codes * rounded.step) - X @ W), axis=0)
    np.testing.assert_allclose(error(rounded, W, X.T @ X / 30)[0], expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_fitted_is_never_worse_than_nearest_and_its_steps_are_found_again(bits: int) -> None:
    better = 0
    for _ in range(5):
        W, gram = _problem(2, I=9, O=4)
        found = fitted(W, gram, bits=bits)
        gain = error(nearest(W, bits=bits), W, gram) - error(found, W, gram)
        assert np.all(gain >= 0.0)
        better += int(np.sum(gain > 0.0))
        again = quantize_weight(jnp.asarray(found.value, jnp.float32), bits=bits, axes=(-2,), rule="paper")
        np.testing.assert_array_equal(again.codes, found.codes)
        np.testing.assert_allclose(again.step, found.step, rtol=1e-6)
    assert better > 20  # of 40 channels


def test_problems_in_front_are_solved_each_by_itself() -> None:
    W, gram = _problem(3)
    together = fitted(W, gram, bits=3)
    for i in range(3):
        alone = fitted(W[i], gram[i], bits=3)
        np.testing.assert_array_equal(together.codes[i], alone.codes)
        np.testing.assert_allclose(together.step[i], alone.step)
