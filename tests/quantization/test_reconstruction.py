"""Reconstruction: nothing to mend changes nothing, and what is mended answers more like the float network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.grades import graded
from tests.support import small_config, small_inputs, small_model

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Signal
from qs5.model.network import S5Model, forward
from qs5.model.ssm import discrete
from qs5.quantization.build import arithmetic_for_spec, plan_of, prepared
from qs5.quantization.calibration import calibrate
from qs5.quantization.reconstruction import ReconstructionOptions, reconstruct
from qs5.quantization.rounding import nearest
from qs5.quantization.spec import QuantSpec, spec_of
from qs5.quantization.static import StaticArithmetic
from qs5.quantization.tap import Tapped

WIDE = "a=16,b=16,c=16,d=16,dense=16,ssm_act=16,act=16,state=16,residual=16"
LENGTHS = jnp.asarray([31, 40, 5, 22])


def _batches(count: int = 2, *, first: int = 0) -> list[tuple[jax.Array, jax.Array | None]]:
    inputs = (small_inputs(B=4, L=40, seed=first + i) for i in range(count))
    return [(jnp.swapaxes(x, 0, 1), LENGTHS if i % 2 else None) for i, x in enumerate(inputs)]


def _case(spec: QuantSpec, **changes: Any) -> tuple[S5Model, StaticArithmetic]:
    model = prepared(small_model(dropout=0.0, **changes), spec)
    arithmetic = arithmetic_for_spec(
        spec, model.config, plan_of(model, calibrate(model, _batches(), data="x"), spec)
    )
    assert isinstance(arithmetic, StaticArithmetic)
    return model, arithmetic


def _distance(model: S5Model, original: S5Model, arithmetic: StaticArithmetic) -> float:
    """Mean square difference of what leaves the last layer, on sequences that nothing was fitted to."""
    x = jnp.swapaxes(small_inputs(B=16, L=40, seed=100), 0, 1)
    mine, theirs = (_stream(m, x, A) for m, A in ((model, arithmetic), (original, FloatArithmetic())))
    return float(jnp.mean(jnp.square(mine - theirs)))


def _stream(model: S5Model, x: jax.Array, arithmetic: Arithmetic) -> jax.Array:
    seen: dict[str, jax.Array] = {}

    def note(signal: Signal) -> None:
        seen[signal.site] = signal.value

    forward(model, x, arithmetic=Tapped(arithmetic, note))
    return seen[f"layers.{model.config.layers - 1}.residual"]


@pytest.mark.parametrize(
    "changes",
    graded([{"bidirectional": True}, {}, {"activation": "full_glu", "norm": "layer"}], quick=1, slow=3),
    ids=str,
)
def test_where_quantization_is_all_but_exact_weights_stay(changes: dict[str, Any]) -> None:
    model, arithmetic = _case(spec_of(WIDE), layers=1, **changes)
    got = reconstruct(model, _batches(), arithmetic)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "layers"), [("W4A8,form=polar", 1), ("W2A8,form=polar", 2), ("W8A8", 1)])
def test_layers_answer_more_like_the_float_ones(text: str, layers: int) -> None:
    model, arithmetic = _case(spec_of(text), H=12, P=12, layers=layers)
    got = reconstruct(model, _batches(16), arithmetic)
    assert _distance(got, model, arithmetic) < 0.9 * _distance(model, model, arithmetic)


def test_modes_outside_the_unit_circle_are_rounded_to_nearest_and_nothing_overflows() -> None:
    """Two linear bits of Lambda-bar have moduli of 0, 1 and sqrt 2; sqrt(2)^300 is no float32."""
    spec = spec_of("W2A8")
    model = prepared(small_model(dropout=0.0, layers=1), spec)
    x = jnp.swapaxes(small_inputs(B=2, L=300), 0, 1)
    plan = plan_of(model, calibrate(model, [(x, None)], data="x"), spec)
    arithmetic = arithmetic_for_spec(spec, model.config, plan)
    assert isinstance(arithmetic, StaticArithmetic)
    after = reconstruct(model, [(x, None)], arithmetic)
    assert all(bool(jnp.all(jnp.isfinite(v))) for v in jax.tree.leaves(after) if eqx.is_inexact_array(v))
    Lambda_bar, B_bar = discrete(model.layers[0].ssm, model.config)
    a = arithmetic.eigenvalues("layers.0.ssm.state", Lambda_bar)
    grows = np.hypot(np.asarray(a.re), np.asarray(a.im)) > 1.1
    assert grows.any() and not grows.all()
    _, found = discrete(after.layers[0].ssm, model.config)
    before, now = (np.stack([np.asarray(v) for v in B], axis=-1).astype(float) for B in (B_bar, found))
    # Codes of two bits are signs; their step is that of the whole matrix, whose other rows have changed.
    np.testing.assert_array_equal(np.sign(now[grows]), np.sign(nearest(before, bits=2).value[grows]))


def test_only_what_is_asked_for_changes() -> None:
    model, arithmetic = _case(spec_of("W2A8"), layers=1)
    got = reconstruct(model, _batches(), arithmetic, options=ReconstructionOptions(B=False, dense=False))
    before, after = model.layers[0], got.layers[0]
    assert not np.array_equal(before.ssm.C_re, after.ssm.C_re)
    kept = [(v.ssm.B_re, v.ssm.B_im, v.ssm.D, v.gate.weight, v.gate.bias) for v in (before, after) if v.gate]
    for a, b in zip(*kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_lie_on_their_grids() -> None:
    model, arithmetic = _case(spec_of("W2A8"), layers=1)
    gate = reconstruct(model, _batches(), arithmetic).layers[0].gate
    assert gate is not None
    for column in np.asarray(gate.weight).T:
        assert len(np.unique(np.abs(column))) <= 2  # 2 bits: a step up, a step down, or nothing


def test_float_and_one_bit_weights_are_left_to_themselves() -> None:
    model, arithmetic = _case(spec_of("a=float,b=float,c=1,d=8,dense=float"), layers=1)
    options = ReconstructionOptions(least_squares=False)
    got = reconstruct(model, _batches(), arithmetic, options=options)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_what_is_not_covered_says_so() -> None:
    model, arithmetic = _case(spec_of("W4A8"), layers=1, prenorm=False)
    with pytest.raises(UserError, match="expected layers with the norm in front"):
        reconstruct(model, _batches(), arithmetic)
    with pytest.raises(UserError, match="rounding=reconstructed belongs to"):
        spec_of("W4A8,rounding=reconstructed,range_rule=aqt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("W8A8Abar16", False),
        ("W8A8", True),  # an 8-bit linear Lambda-bar
        ("W8A8,form=polar", False),
        ("W4A8SSM8,form=polar", True),
        ("W4A8,rounding=nearest", False),
        ("W8A8Abar16,rounding=reconstructed", True),
        ("W4A8,schedule=parallel", False),
        ("W8A8Abar16,layers.0.gate.weight=4", True),
        ("W8A8Abar16,layers.*.gate=4", False),  # an activation
    ],
)
def test_auto_follows_the_widths(text: str, expected: bool) -> None:
    assert spec_of(text).reconstructs(small_config()) == expected


def test_auto_leaves_post_norm_layers_alone() -> None:
    assert not spec_of("W4A8").reconstructs(small_config(prenorm=False))
