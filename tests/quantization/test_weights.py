"""Weight quantization: grids, range rules, eigenvalues on one shared step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.quantization.weights import quantize_eigenvalues, quantize_weight

FLOAT32 = 1e-5
"""Relative: sums of squares of float32 differences, against float64."""


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 12, 16])
@pytest.mark.parametrize("rule", ["paper", "aqt"])
def test_value_is_codes_times_step_and_codes_fit(bits: int, rule, rng: np.random.Generator) -> None:
    w = jnp.asarray(rng.normal(size=(40, 5)), jnp.float32)
    q = quantize_weight(w, bits=bits, axes=(0,), rule=rule)
    high = max(2 ** (bits - 1) - 1, 1)
    codes = np.asarray(q.codes)
    assert q.step.shape == (1, 5)
    np.testing.assert_array_equal(codes, np.round(codes))
    assert np.abs(codes).max() <= high
    np.testing.assert_array_equal(q.value, q.codes * q.step)


def test_one_bit_is_two_levels() -> None:
    q = quantize_weight(jnp.asarray([[0.5], [-2.0], [0.0]]), bits=1, axes=(0,), rule="paper")
    assert q.value[:, 0].tolist() == [1.0, -1.0, 1.0]


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_step_is_the_best_of_the_clipping_points(bits: int, rng: np.random.Generator) -> None:
    """A slow search over the same clipping points finds no smaller error, and clipping beats equation 3."""
    w = rng.standard_t(3, size=(200, 3)).astype(np.float32)
    q = quantize_weight(jnp.asarray(w), bits=bits, axes=(0,), rule="paper")
    high = 2 ** (bits - 1) - 1
    for channel in range(3):
        column = w[:, channel]
        errors = []
        for ratio in np.linspace(0.3, 1.0, 15):
            step = np.abs(column).max() / high * ratio
            errors.append(np.sum((np.clip(np.floor(column / step + 0.5), -high, high) * step - column) ** 2))
        mine = float(np.sum((np.asarray(q.value)[:, channel] - column) ** 2))
        assert mine == pytest.approx(min(errors), rel=FLOAT32)
        assert mine <= errors[-1] * (1 + FLOAT32)


@pytest.mark.parametrize(("rule", "top"), [("paper", 127.0), ("aqt", 127.5)])
def test_from_eight_bits_on_the_step_is_that_of_the_range_rule(
    rule, top: float, rng: np.random.Generator
) -> None:
    w = jnp.asarray(rng.normal(size=(50, 3)), jnp.float32)
    step = quantize_weight(w, bits=8, axes=(0,), rule=rule).step
    np.testing.assert_allclose(step, np.abs(w).max(axis=0, keepdims=True) / top, rtol=1e-6)


def test_all_zero_channel_and_float() -> None:
    zeros = quantize_weight(jnp.zeros((4, 2)), bits=8, axes=(0,), rule="paper")
    assert not np.any(zeros.value) and np.all(np.isfinite(zeros.step))
    w = jnp.asarray([[0.3, -0.7]])
    np.testing.assert_array_equal(quantize_weight(w, bits=None, axes=(0,), rule="paper").value, w)


def test_gradient_is_the_identity() -> None:
    w = jnp.asarray(np.linspace(-1, 1, 12).reshape(6, 2), jnp.float32)
    slopes = jax.grad(lambda v: jnp.sum(quantize_weight(v, bits=2, axes=(0,), rule="paper").value * 3.0))(w)
    np.testing.assert_array_equal(slopes, np.full((6, 2), 3.0))


@pytest.mark.parametrize("bits", [2, 4, 8, 11, 12, 16])
def test_eigenvalues_share_a_step_that_integers_can_apply(bits: int, rng: np.random.Generator) -> None:
    z = rng.uniform(0.5, 0.9999, 32) * np.exp(1j * rng.uniform(-3, 3, 32))
    re, im = jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)
    q = quantize_eigenvalues(re, im, bits=bits, rule="paper")
    step = float(np.ldexp(float(q.M), -int(q.shift)))
    assert float(q.re.step[0]) == float(q.im.step[0]) == step
    high = 2 ** (bits - 1) - 1
    largest = max(np.abs(z.real).max(), np.abs(z.imag).max())
    assert step == pytest.approx(2.0 ** -(bits - 1) if bits >= 12 else largest / high, rel=2**-14)
    for part, codes in ((z.real, q.re.codes), (z.imag, q.im.codes)):
        expected = np.clip(
            np.floor(part.astype(np.float32) / np.float32(step) + np.float32(0.5)), -high, high
        )
        np.testing.assert_array_equal(np.asarray(codes), expected)
