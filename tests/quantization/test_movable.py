"""A movable arithmetic: the same bits as the plan it came from, and one program for many plans."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import small_inputs, small_model

from qs5.kernels import native
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model, forward
from qs5.quantization.build import arithmetic_for_spec, plan_of, prepared
from qs5.quantization.calibration import calibrate
from qs5.quantization.spec import QuantSpec, spec_of
from qs5.quantization.static import StaticArithmetic, movable

X = jnp.swapaxes(small_inputs(B=2, L=20), 0, 1)
SPECS = {
    "kernels": "W4A8",
    "operations": "W4A8",
    "exact": "W4A8,exact=true",
    "polar": "W4A8,form=polar",
    "float state": "W8A8,state=float",
    "float residual": "W8A8,residual=float",
}


def _model(spec: QuantSpec) -> S5Model:
    return prepared(small_model(layers=1, bidirectional=True), spec)


def _arithmetic(model: S5Model, spec: QuantSpec, x: jax.Array) -> Any:
    plan = plan_of(model, calibrate(model, [(x, None)], data="test"), spec)
    return arithmetic_for_spec(spec, model.config, plan)


@pytest.mark.parametrize("way", SPECS)
def test_same_bits_as_the_plan(way: str) -> None:
    if way == "kernels" and not native.available():
        pytest.skip("the native extension is not there")
    spec = spec_of(SPECS[way])
    model = _model(spec)
    fixed = dataclasses.replace(_arithmetic(model, spec, X), kernels=way == "kernels")
    moving = movable(fixed)
    assert moving != fixed
    # Not jitted: a compiler may round two programs differently. Four times the input: grids that saturate.
    got, expected = (forward(model, 4.0 * X, arithmetic=a).value for a in (moving, fixed))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", ["linear", "polar"])
def test_plans_of_one_format_share_a_program(form: str) -> None:
    spec = spec_of(f"W4A8,form={form}")
    first = _model(spec)
    second = jax.tree.map(lambda v: v * 1.7, first)
    traces = 0

    @jax.jit
    def run(model: S5Model, arithmetic: StaticArithmetic) -> jax.Array:
        nonlocal traces
        traces += 1
        return forward(model, X, arithmetic=arithmetic).value

    plans = [_arithmetic(model, spec, x) for model, x in ((first, X), (second, 8.0 * X))]
    assert plans[0].plan != plans[1].plan
    results = [run(first, movable(a)) for a in plans]
    assert traces == 1
    for result, a in zip(results, plans, strict=True):
        alone = forward(first, X, arithmetic=a).value
        # Two programs: single codes of 8-bit activations apart.
        assert jnp.max(jnp.abs(result - alone)) <= 0.05 * jnp.max(jnp.abs(alone))
    assert not np.array_equal(*results)


def test_what_has_no_plan_stays_as_it_is() -> None:
    arithmetic = FloatArithmetic()
    assert movable(arithmetic) is arithmetic
