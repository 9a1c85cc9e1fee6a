"""The deployable forward pass: exact integers against an int64 oracle, simulation against exact, gradients."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.quantization.integer_oracle import IntegerNetwork
from tests.support import small_config, small_inputs, small_model

from qs5.errors import DivergedError, UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model, forward
from qs5.quantization.build import static_arithmetic
from qs5.quantization.calibration import CalibrationStats, calibrate, plan_grids
from qs5.quantization.exact import exact_obstacles
from qs5.quantization.grids import Grid
from qs5.quantization.spec import QuantSpec, spec_of
from qs5.quantization.static import StaticArithmetic

L, B = 30, 4
LENGTHS = np.array([30, 1, 17, 8])
NEARLY_EXACT = 0.02
"""Simulated against exact, relative to the largest logit: single codes of 8-bit activations."""

# Every choice in one case at least, and a second layer in one: each operation is compiled for every shape and type.
CASES: dict[str, dict[str, Any]] = {
    "half_glu1, clipped bilinear": {
        "layers": 2,
        "clip_eigs": True,
        "discretization": "bilinear",
        "norm_bias": False,
    },
    "half_glu2, bidirectional": {"layers": 1, "activation": "half_glu2", "bidirectional": True},
    "gelu, regression": {"layers": 1, "activation": "gelu", "head": "regression"},
    "full_glu, last, paper's operators, no conjugates": {
        "layers": 1,
        "activation": "full_glu",
        "pooling": "last",
        "gelu": "qgelu",
        "gate": "hard_sigmoid",
        "conj_sym": False,
        "P": 6,  # the width of the other cases' states
    },
}
SPECS = (
    "W8A8Abar16",
    "W8A8",
    "W4A8",
    "W2A8,state=8",
    "a=16,b=3,c=5,d=6,dense=7,ssm_act=6,act=5,state=12,residual=14",
)


def _model(**changes: Any) -> S5Model:
    return small_model(**{"H": 12, "P": 12, **changes})


def _inputs(d_in: int = 3) -> jax.Array:
    return jnp.swapaxes(small_inputs(B=B, L=L, d=d_in), 0, 1)


def _lengths(model: S5Model) -> jax.Array | None:
    return None if model.config.head == "regression" else jnp.asarray(LENGTHS)


def _stats(model: S5Model) -> CalibrationStats:
    return calibrate(model, [(_inputs(), None)], data="test")


def _arithmetic(model: S5Model, spec: QuantSpec) -> StaticArithmetic:
    return static_arithmetic(spec, model.config, plan_grids(_stats(model), spec, model.config))


def _oracle_cases() -> list[Any]:
    """Every case once, by turns, with all specs but W4A8; the full product is slow."""
    specs = [text for text in SPECS if text != "W4A8"]
    quick = set(zip(CASES, specs, strict=True))
    product = [(case, text) for case in CASES for text in SPECS]
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in product]


@pytest.mark.parametrize(("case", "text"), _oracle_cases())
def test_exact_forward_equals_int64_oracle(case: str, text: str) -> None:
    model = _model(**CASES[case])
    arithmetic = _arithmetic(model, spec_of(text, exact=True))
    # Not jitted: the weights' steps must come from the same sequence of float operations on both sides.
    got = forward(model, _inputs(), arithmetic=arithmetic, lengths=_lengths(model)).value
    oracle = IntegerNetwork(model, arithmetic)
    expected = oracle.run(np.asarray(_inputs()), None if _lengths(model) is None else LENGTHS)
    np.testing.assert_array_equal(np.asarray(got / oracle.step("decoder")), expected)


@pytest.mark.parametrize("case", CASES)
def test_simulation_is_within_single_codes_of_the_integers(case: str) -> None:
    model = _model(**CASES[case])
    spec = spec_of("W8A8Abar16")
    simulated, exact = (
        forward(model, _inputs(), arithmetic=_arithmetic(model, s), lengths=_lengths(model)).value
        for s in (spec, spec.replace(exact=True))
    )
    assert np.max(np.abs(simulated - exact)) <= NEARLY_EXACT * np.max(np.abs(exact))


def test_sixteen_bits_everywhere_is_close_to_float() -> None:
    model = _model()
    spec = spec_of("a=16,b=16,c=16,d=16,dense=16,ssm_act=16,act=16")
    got = forward(model, _inputs(), arithmetic=_arithmetic(model, spec)).value
    expected = forward(model, _inputs(), arithmetic=FloatArithmetic()).value
    np.testing.assert_allclose(got, expected, atol=5e-3)


def test_all_float_is_the_float_model() -> None:
    model = _model(**CASES["half_glu2, bidirectional"])
    everything = ("a", "b", "c", "d", "dense", "ssm_act", "act", "state", "residual")
    spec = spec_of(",".join(f"{field}=float" for field in everything))
    got = forward(model, _inputs(), arithmetic=_arithmetic(model, spec)).value
    expected = forward(model, _inputs(), arithmetic=FloatArithmetic()).value
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_fewer_bits_cost_more() -> None:
    model = _model()
    expected = forward(model, _inputs(), arithmetic=FloatArithmetic()).value
    errors = [
        float(
            jnp.linalg.norm(
                forward(model, _inputs(), arithmetic=_arithmetic(model, spec_of(t))).value - expected
            )
        )
        for t in ("W8A8Abar16", "W4A8", "W2A8")
    ]
    assert errors[0] < 0.5 * errors[1] < 0.5 * errors[2]


@partial(jax.jit, static_argnums=1)
def _gradient(model: S5Model, arithmetic: Any) -> S5Model:
    def loss(model: S5Model) -> jax.Array:
        return jnp.sum(jnp.square(forward(model, _inputs(), arithmetic=arithmetic).value))

    return jax.grad(loss)(model)


@pytest.mark.parametrize("exact", [False, True])
def test_gradients_are_straight_through(exact: bool) -> None:
    """At 8-bit weights the gradient points where the float gradient points, and exact equals simulated nearly."""
    model = _model(layers=1)
    spec = spec_of("a=16,b=8,c=8,d=8,dense=8,ssm_act=8,act=8", exact=exact)

    got, expected = (
        _gradient(model, arithmetic) for arithmetic in (_arithmetic(model, spec), FloatArithmetic())
    )
    for mine, theirs in zip(jax.tree.leaves(got.layers), jax.tree.leaves(expected.layers), strict=True):
        cosine = jnp.sum(mine * theirs) / (jnp.linalg.norm(mine) * jnp.linalg.norm(theirs))
        assert cosine > 0.9


def test_state_carried_between_chunks_gives_the_same_bits() -> None:
    model = _model(**CASES["gelu, regression"])
    arithmetic = _arithmetic(model, spec_of("W8A8Abar16", exact=True))
    whole = forward(model, _inputs(), arithmetic=arithmetic)
    first = forward(model, _inputs()[: L // 2], arithmetic=arithmetic)
    second = forward(model, _inputs()[L // 2 :], arithmetic=arithmetic, states=first.states)
    np.testing.assert_array_equal(jnp.concatenate([first.value, second.value]), whole.value)
    for mine, theirs in zip(second.states, whole.states, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_obstacles_are_all_named_at_once() -> None:
    config = small_config(head="retrieval", layers=1)
    spec = spec_of("a=16,b=12,c=float,act=10", exact=True)
    reasons = " ".join(exact_obstacles(spec, config))
    for word in ("retrieval", "Bu.weight has 12 bits", "y.C is float", "act=10"):
        assert word in reasons
    model = small_model(head="retrieval", layers=1)
    plan = plan_grids(calibrate(model, [(_inputs(), None)], data="test"), spec.replace(exact=False), config)
    with pytest.raises(UserError, match="no exact integer forward pass"):
        static_arithmetic(spec, config, plan)


def test_grids_of_the_residual_stream_are_one_and_of_the_modes_are_many() -> None:
    model = _model(bidirectional=True)
    grids = dict(_arithmetic(model, spec_of("W8A8Abar16")).plan.grids)
    residual = {grids[s].exponent for s in ("encoder", "layers.0.residual", "layers.1.product", "pool")}
    assert len(residual) == 1
    modes = grids["layers.0.ssm.state"].exponent
    assert isinstance(modes, tuple) and modes[:6] == modes[6:] and len(set(modes)) > 1
    assert grids["layers.0.ssm.Bu"].exponent == modes == grids["layers.0.ssm.state_reverse"].exponent
    assert not grids["layers.0.sigmoid"].format.signed


def test_no_residual_or_state_of_the_calibration_set_saturates() -> None:
    model = _model()
    stats = _stats(model)
    for name, grid in plan_grids(stats, spec_of("W8A8Abar16"), model.config).grids:
        if name.endswith(("residual", ".state", "pool", "decoder")):
            assert np.all(stats.ranges[name].largest < grid.format.high * grid.step)


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
def test_observers_choose_by_their_rule(observer: Any) -> None:
    from qs5.numerics.formats import QFormat
    from qs5.quantization.calibration import choose_exponent

    sample = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    sample[0] = 40.0  # one outlier
    exponent = choose_exponent(sample, 40.0, QFormat(4), observer)
    # 7 * 2^e: minmax must hold 40 (e = 3), the 99.99th percentile is 3.9 (e = 0), least squares clips more.
    assert exponent == {"minmax": 3, "percentile": 0, "mse": -1}[observer]


def test_grid_rounds_halves_up_and_saturates() -> None:
    from qs5.numerics.formats import QFormat
    from qs5.quantization.grids import to_grid

    grid = Grid(QFormat(4), -1)
    x = jnp.asarray([0.25, -0.25, 0.75, -0.75, 0.24, 100.0, -100.0])
    assert to_grid(x, grid).tolist() == [0.5, 0.0, 1.0, -0.5, 0.0, 3.5, -3.5]
    slopes = jax.grad(lambda v: jnp.sum(to_grid(v, grid)))(x)
    assert slopes.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_model_without_finite_values_has_no_scales() -> None:
    model = _model()
    infinite = jax.tree.map(lambda v: jnp.full_like(v, jnp.inf), model.layers[0].gate)
    broken = eqx.tree_at(lambda m: m.layers[0].gate, model, infinite)
    with pytest.raises(
        DivergedError, match=r"expected finite values, got NaN or infinity from layers\.0\.gate on"
    ):
        _stats(broken)
