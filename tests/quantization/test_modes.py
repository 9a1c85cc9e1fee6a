"""Modes in another order are the same network."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import compiled_forward, small_inputs, small_model

from qs5.errors import UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.quantization.modes import eigenvalues, ordered

TOLERANCE = 2e-5
"""Float32 sums over modes in another order."""


@pytest.mark.parametrize("bidirectional", [False, True])
def test_ordered_modes_are_the_same_function(bidirectional: bool) -> None:
    model = small_model(d_in=2, d_out=3, bidirectional=bidirectional)
    x = jnp.swapaxes(small_inputs(B=3, L=40, d=2), 0, 1)
    before, after = (
        compiled_forward(m, x, arithmetic=FloatArithmetic()).value for m in (model, ordered(model))
    )
    np.testing.assert_allclose(before, after, rtol=TOLERANCE, atol=TOLERANCE)


def test_angles_are_sorted_and_not_negative() -> None:
    model = small_model(d_in=2, d_out=3)
    for before, after in zip(model.layers, ordered(model).layers, strict=True):
        angle = np.angle(eigenvalues(after.ssm, model.config))
        assert np.all(angle >= 0) and np.all(np.diff(angle) >= 0)
        old = np.angle(eigenvalues(before.ssm, model.config))
        np.testing.assert_allclose(np.sort(np.abs(old)), angle, atol=1e-6)
    assert any(jnp.any(layer.ssm.Lambda_im < 0) for layer in model.layers), "nothing to conjugate"


def test_conjugates_of_their_own_are_refused() -> None:
    with pytest.raises(UserError, match="conj_sym"):
        ordered(small_model(d_in=2, d_out=3, conj_sym=False))
