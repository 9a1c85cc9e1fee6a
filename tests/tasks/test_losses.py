import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.tasks import losses, metrics

RTOL = 1e-6  # float32, a few rounded operations
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(5, 3)).astype(np.float32) * 4
LABELS = np.array([0, 1, 2, 2, 1], np.int32)


def test_cross_entropy_is_minus_log_softmax():
    expected = [
        -np.log(np.exp(float(z[y])) / sum(np.exp(float(v)) for v in z))
        for z, y in zip(LOGITS, LABELS, strict=True)
    ]
    got = losses.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    assert got.shape == (5,)
    np.testing.assert_allclose(got, np.asarray(expected), rtol=RTOL * 10)


def test_cross_entropy_of_large_logits_is_finite():
    got = losses.cross_entropy(jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1]))
    np.testing.assert_allclose(got, [0.0, 1e4], rtol=RTOL)


def test_gradient_is_softmax_minus_one_hot():
    gradient = jax.grad(lambda z: losses.cross_entropy(z, jnp.asarray(LABELS)).sum())(jnp.asarray(LOGITS))
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True) - np.eye(3)[LABELS]
    np.testing.assert_allclose(gradient, expected, rtol=RTOL * 10, atol=RTOL)


def test_correct_counts_the_first_of_equals():
    logits = jnp.array([[0.0, 2.0, 1.0], [3.0, 3.0, 0.0], [3.0, 3.0, 0.0]])
    got = losses.correct(logits, jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(got, [1.0, 1.0, 0.0])
    assert got.dtype == jnp.float32


def slow_mse(pred: np.ndarray, target: np.ndarray, lengths: np.ndarray) -> list[float]:
    return [
        float(np.mean([(float(a) - float(b)) ** 2 for a, b in zip(p[:n].flat, t[:n].flat, strict=True)]))
        for p, t, n in zip(pred, target, lengths, strict=True)
    ]


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 4, 2]])
def test_mse_is_the_mean_over_valid_steps_and_outputs(lengths: list[int]):
    pred, target = RANDOM.normal(size=(2, 3, 4, 2)).astype(np.float32)
    got = losses.mse(jnp.asarray(pred), jnp.asarray(target), jnp.asarray(lengths))
    np.testing.assert_allclose(got, slow_mse(pred, target, np.array(lengths)), rtol=RTOL)
    if min(lengths) == 4:
        np.testing.assert_allclose(losses.mse(jnp.asarray(pred), jnp.asarray(target), None), got, rtol=RTOL)


def test_padding_reaches_neither_value_nor_gradient():
    pred = jnp.array([[[1.0], [jnp.nan], [jnp.inf]]])
    target = jnp.zeros((1, 3, 1))
    value, gradient = jax.value_and_grad(lambda p: losses.mse(p, target, jnp.array([1])).sum())(pred)
    assert value == 1.0
    np.testing.assert_array_equal(gradient, [[[2.0], [0.0], [0.0]]])


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 4, 2]])
def test_smape_of_each_example_is_the_metric_on_it(lengths: list[int]):
    pred, target = RANDOM.normal(size=(2, 3, 4, 2)).astype(np.float32)
    got = losses.smape(jnp.asarray(pred), jnp.asarray(target), jnp.asarray(lengths))
    rows = zip(pred, target, lengths, strict=True)
    np.testing.assert_allclose(
        got, [metrics.smape(p[None, :n], y[None, :n], None) for p, y, n in rows], rtol=RTOL
    )
    if min(lengths) == 4:
        np.testing.assert_allclose(losses.smape(jnp.asarray(pred), jnp.asarray(target), None), got, rtol=RTOL)


def test_padding_and_zeros_give_smape_no_infinite_gradient():
    pred, target = jnp.array([[[3.0], [0.0], [jnp.nan]]]), jnp.array([[[1.0], [0.0], [0.0]]])
    value, gradient = jax.value_and_grad(lambda p: losses.smape(p, target, jnp.array([2])).sum())(pred)
    assert value == 50.0  # 2/4 and 0/0, of two steps
    assert np.isfinite(gradient).all() and gradient[0, 2, 0] == 0.0 and gradient[0, 0, 0] > 0.0
