"""Batch and layer norm against NumPy; the running statistics of batch norm."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import Recording, assert_same_bits, small_config, small_inputs, small_model

from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import forward, trainable, with_statistics
from qs5.model.norms import batch_statistics, init_norm, running

# float32 against float64, values of size 1; the variance is a difference of means.
TOLERANCE = 1e-5


def assert_close(got: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def first_norm(*, batch_stats: bool, **changes: Any) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    """(norm of the first layer, what went in, what came out, statistics of the forward pass)."""
    model, recording = small_model(**changes), Recording()
    out = forward(model, jnp.swapaxes(small_inputs(), 0, 1), arithmetic=recording, batch_stats=batch_stats)
    before, after = (np.asarray(recording.values[s], np.float64) for s in ("encoder", "layers.0.norm"))
    return model.layers[0].norm, before, after, out.statistics


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_over_features(bias: bool):
    norm, x, y, statistics = first_norm(batch_stats=True, norm="layer", norm_bias=bias)
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(var + 1e-6) * np.asarray(norm.scale)
    assert_close(y, scaled + np.asarray(norm.bias) if bias else scaled)
    assert statistics == (None, None)
    assert (norm.bias is None) is not bias


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_in_training_is_over_time_and_batch(bias: bool):
    norm, x, y, statistics = first_norm(batch_stats=True, norm_bias=bias)
    mean, var = x.mean((0, 1)), x.var((0, 1))
    scaled = (x - mean) / np.sqrt(var + 1e-5) * np.asarray(norm.scale)
    assert_close(y, scaled + np.asarray(norm.bias) if bias else scaled)
    assert_close(statistics[0].mean, mean)
    assert_close(statistics[0].var, var)


def test_batch_norm_in_evaluation_uses_the_running_statistics():
    norm, x, y, statistics = first_norm(batch_stats=False)
    expected = (x - np.asarray(norm.mean)) / np.sqrt(np.asarray(norm.var) + 1e-5)
    assert_close(y, expected * np.asarray(norm.scale) + np.asarray(norm.bias))
    assert statistics == (None, None)


def test_running_statistics_move_by_one_minus_the_momentum():
    model = small_model(bn_momentum=0.75)
    x = jnp.swapaxes(small_inputs(), 0, 1)
    statistics = forward(model, x, arithmetic=FloatArithmetic(), batch_stats=True).statistics
    moved = with_statistics(model, statistics)
    for old, new, batch in zip(model.layers, moved.layers, statistics, strict=True):
        assert batch is not None
        for name in ("mean", "var"):
            before, after = (np.asarray(getattr(layer.norm, name)) for layer in (old, new))
            assert_close(after, 0.75 * before + 0.25 * np.asarray(getattr(batch, name)))
        np.testing.assert_array_equal(new.norm.scale, old.norm.scale)
        np.testing.assert_array_equal(new.norm.bias, old.norm.bias)


def test_statistics_of_an_evaluation_pass_change_nothing():
    model = small_model()
    assert_same_bits(with_statistics(model, (None, None)), model)


def test_variance_is_never_negative():
    x = jnp.full((3, 2, 4), 1234.567)
    assert (np.asarray(batch_statistics(x).var) >= 0).all()


def test_a_fresh_norm_is_the_identity_with_running_statistics_for_batch_norm_only():
    batch, layer = init_norm(small_config()), init_norm(small_config(norm="layer", norm_bias=False))
    for got, number in ((batch.scale, 1), (batch.bias, 0), (batch.mean, 0), (batch.var, 1), (layer.scale, 1)):
        np.testing.assert_array_equal(got, np.full(6, number, np.float32))
    assert (layer.bias, layer.mean, layer.var) == (None, None, None)
    with pytest.raises(ValueError, match="expected a batch norm"):
        running(layer)


def test_running_statistics_are_not_trained_and_not_counted():
    batch, layer = small_model(), small_model(norm="layer")
    mask = trainable(batch)
    assert [m.norm.mean for m in mask.layers] == [False, False]
    assert [m.norm.var for m in mask.layers] == [False, False]
    assert [(m.norm.scale, m.norm.bias) for m in mask.layers] == [(True, True)] * 2
    assert batch.parameter_count == layer.parameter_count
