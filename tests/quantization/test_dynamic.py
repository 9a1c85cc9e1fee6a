"""`DynamicArithmetic`: which bits and which scale every operand has, what stays float, and gradients.

Every operation is compared with loops in float64, under a spec in which no two components have the same bits.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.grades import graded
from tests.quantization.dynamic_oracle import Quantizer, pack, unpack
from tests.support import small_config, small_inputs, small_model

from qs5.errors import UserError
from qs5.model.arithmetic import FloatArithmetic, Signal
from qs5.model.discretize import Complex
from qs5.model.network import forward
from qs5.model.norms import LAYER_EPS, Norm
from qs5.model.operators import POINTWISE
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.spec import QuantSpec

# float32 against float64: sums of few products of numbers of order 1.
TOLERANCE = 2e-6
# The same through a scan, or a whole network.
NETWORK_TOLERANCE = 1e-5
# All components float: the same operations in the same order.
FLOAT_TOLERANCE = 1e-6
# Rounding to 16 bits, largest error of a logit.
SIXTEEN_BITS = 2e-3

COMPONENTS = ("a", "b", "c", "d", "dense", "ssm_act", "act")
WIDTHS = {"a": 3, "b": 4, "c": 5, "d": 6, "dense": 7, "ssm_act": 8, "act": 9}
SSM = "layers.0.ssm"
L, B = 5, 3


def spec_with(bits: int | None = None, **changes: Any) -> QuantSpec:
    """All components at one width."""
    return QuantSpec(**{**dict.fromkeys(COMPONENTS, bits), "schedule": "parallel", **changes})


def distinct(config: Any = None, **changes: Any) -> DynamicArithmetic:
    """A different width for every component."""
    spec = spec_with(**{**WIDTHS, "range_rule": "aqt", **changes})
    return DynamicArithmetic.of(spec, config or small_config())


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def signal(x: np.ndarray, site: str) -> Signal:
    return Signal(jnp.asarray(x), site)


def assert_close(got: Any, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(got), expected, rtol=tolerance, atol=tolerance)


# -- one operation after the other ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "source", "shape", "kept"),
    [
        ("encoder", "input", (L, B, 3), (1,)),
        ("layers.0.gate", "layers.0.gelu", (L, B, 6), (1,)),
        ("decoder", "pool", (B, 6), (0,)),
    ],
)
def test_dense(site: str, source: str, shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    x, W, bias = normal(1, *shape), normal(2, shape[-1], 4), normal(3, 4)
    Q = Quantizer("aqt")
    expected = Q.groups(x, WIDTHS["act"], kept) @ Q.tensor(W, WIDTHS["dense"]) + bias
    got = distinct().dot(site, signal(x, source), jnp.asarray(W), jnp.asarray(bias))
    assert got.site == site
    assert_close(got.value, expected)


@pytest.mark.parametrize("quantized", [False, True])
def test_the_gradient_of_a_dense_weight(quantized: bool) -> None:
    """Quantized backward: a scale an example for the cotangent, which is summed over examples after that."""
    x, W, g = normal(1, L, B, 3), normal(2, 3, 4), normal(3, L, B, 4)
    g *= 10.0 ** np.arange(B)[None, :, None]
    Q, wider = Quantizer("aqt"), max(WIDTHS["act"], WIDTHS["dense"])
    x_q, g_q = Q.groups(x, WIDTHS["act"], (1,)), g.astype(np.float64)
    if quantized:
        x_q, g_q = Q.groups(x_q, wider, (1,)), Q.groups(g, wider, (1,))
    arithmetic = distinct(quantized_backward=quantized)
    _, pull = jax.vjp(lambda W: arithmetic.dot("encoder", signal(x, "input"), W, None).value, jnp.asarray(W))
    expected = np.einsum("lbi,lbo->io", x_q, g_q)
    assert_close(pull(jnp.asarray(g))[0] / 100, expected / 100, NETWORK_TOLERANCE)


def test_input_projection() -> None:
    u, re, im = normal(1, L, B, 6), normal(2, 4, 6), normal(3, 4, 6)
    Q = Quantizer("aqt")
    u_q = Q.groups(u, WIDTHS["ssm_act"], (0, 1))
    expected = np.concatenate([u_q @ Q.tensor(part, WIDTHS["b"]).T for part in (re, im)], axis=-1)
    B_bar = Complex(jnp.asarray(re), jnp.asarray(im))
    got = distinct().input_projection(f"{SSM}.Bu", signal(u, "layers.0.norm"), B_bar)
    assert_close(got.value, expected)


@pytest.mark.parametrize("direction", ["state", "state_reverse"])
def test_recurrence(direction: str) -> None:
    reverse = direction == "state_reverse"
    a = 0.9 * np.exp(1j * np.arange(1, 5))
    Bu = normal(2, L, B, 8)
    order = slice(None, None, -1) if reverse else slice(None)
    Q = Quantizer("aqt")
    expected = pack(Q.states(a, unpack(Bu)[order], WIDTHS["a"], WIDTHS["ssm_act"])[order])
    Lambda_bar = Complex(jnp.asarray(np.real(a), jnp.float32), jnp.asarray(np.imag(a), jnp.float32))
    arithmetic = distinct(small_config(bidirectional=True))
    got = arithmetic.recurrence(
        f"{SSM}.{direction}", Lambda_bar, signal(Bu, f"{SSM}.Bu"), None, reverse=reverse
    )
    assert_close(got.value, expected, NETWORK_TOLERANCE)


@pytest.mark.parametrize("directions", [1, 2])
def test_output_projection(directions: int) -> None:
    """Both directions share a scale, so a loud backward state coarsens the forward one."""
    names = ("state", "state_reverse")[:directions]
    xs = [normal(1, L, B, 8), 20 * normal(2, L, B, 8)][:directions]
    u, re, im, D = normal(3, L, B, 6), *normal(4, 2, 6, 4 * directions), normal(5, 6)
    Q = Quantizer("aqt")
    z = np.concatenate([unpack(x) for x in xs], axis=-1)
    x_re, x_im = (Q.groups(v, WIDTHS["ssm_act"], (0, 1)) for v in (np.real(z), np.imag(z)))
    y = x_re @ Q.tensor(re, WIDTHS["c"]).T - x_im @ Q.tensor(im, WIDTHS["c"]).T
    expected = 2 * y + Q.groups(u, WIDTHS["ssm_act"], (0, 1)) * Q.tensor(D, WIDTHS["d"])
    got = distinct(small_config(bidirectional=directions == 2)).output_projection(
        f"{SSM}.y",
        tuple(signal(x, f"{SSM}.{name}") for x, name in zip(xs, names, strict=True)),
        signal(u, "layers.0.norm"),
        Complex(jnp.asarray(re), jnp.asarray(im)),
        jnp.asarray(D),
        factor=2.0,
    )
    assert_close(got.value, expected, 10 * TOLERANCE)


@pytest.mark.parametrize("with_bias", [False, True])
def test_layer_norm(with_bias: bool) -> None:
    x, scale, bias = 3 * normal(1, L, B, 6) + 1, normal(2, 6), normal(3, 6)
    x64 = x.astype(np.float64)
    gain = scale / np.sqrt(x64.var(axis=-1, keepdims=True) + LAYER_EPS)
    Q = Quantizer("aqt")
    y = Q.groups(x64 - x64.mean(axis=-1, keepdims=True), 9, (1,)) * Q.groups(gain, 9, (1,))
    norm = Norm(jnp.asarray(scale), jnp.asarray(bias) if with_bias else None, None, None)
    got = distinct(small_config(norm="layer")).norm(
        "layers.0.norm", signal(x, "encoder"), norm, batch_stats=True
    )
    assert got.statistics is None
    assert_close(got.signal.value, y + bias if with_bias else y, NETWORK_TOLERANCE)


def test_layer_norm_can_stay_float() -> None:
    """The paper's W8A8*: products of matrices are quantized, the norm is not."""
    x, scale = 3 * normal(1, L, B, 6) + 1, normal(2, 6)
    norm = Norm(jnp.asarray(scale), None, None, None)
    got, expected = (
        a.norm("layers.0.norm", signal(x, "encoder"), norm, batch_stats=False).signal.value
        for a in (distinct(small_config(norm="layer"), quantized_norm=False), FloatArithmetic())
    )
    np.testing.assert_array_equal(got, expected)


def test_batch_norm_is_float() -> None:
    x, norm = signal(normal(1, L, B, 6), "encoder"), small_model().layers[0].norm
    got, expected = (
        a.norm("layers.0.norm", x, norm, batch_stats=True) for a in (distinct(), FloatArithmetic())
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, got, expected))


def test_qgelu() -> None:
    x = 2 * normal(1, L, B, 6)
    Q = Quantizer("aqt")
    h = np.clip(x.astype(np.float64) + 2, 0, 4) / 4
    expected = Q.groups(x, WIDTHS["act"], (1,)) * Q.groups(h, WIDTHS["act"], (1,))
    got = distinct().pointwise("layers.0.gelu", "qgelu", signal(x, f"{SSM}.y"))
    assert_close(got.value, expected)


@pytest.mark.parametrize(("bits", "factor"), [(8, 0.992), (6, 0.969), (4, 0.871)])
def test_qgelu_above_two_is_too_small_under_the_rule_of_aqt(bits: int, factor: float) -> None:
    """Figure 3 of the paper: x h(x) = x there, less what both operands lose of their maximum."""
    x = signal(np.full((1, 1, 6), 3.0, np.float32), f"{SSM}.y")
    for rule, expected in (("aqt", 3 * factor), ("paper", 3.0)):
        arithmetic = DynamicArithmetic.of(spec_with(bits, range_rule=rule), small_config())
        got = arithmetic.pointwise("layers.0.gelu", "qgelu", x).value
        np.testing.assert_allclose(got, expected, atol=3 * 5e-4)


@pytest.mark.parametrize("name", ["gelu", "sigmoid", "hard_sigmoid"])
def test_other_functions_are_float(name: str) -> None:
    x = normal(1, L, B, 6)
    got = distinct().pointwise("layers.0.gelu", name, signal(x, f"{SSM}.y"))
    np.testing.assert_array_equal(got.value, POINTWISE[name](jnp.asarray(x)))


def test_gate_product() -> None:
    """Each operand at the bits of its own site."""
    g, gate = normal(1, L, B, 6), normal(2, L, B, 6)
    Q = Quantizer("aqt")
    expected = Q.groups(g, 4, (1,)) * Q.groups(gate, 9, (1,))
    arithmetic = distinct(overrides=(("*.gelu", 4),))
    got = arithmetic.multiply(
        "layers.0.product", signal(g, "layers.0.gelu"), signal(gate, "layers.0.sigmoid")
    )
    assert_close(got.value, expected)


# -- bits -------------------------------------------------------------------------------------------------


def test_the_residual_stream_is_read_at_the_bits_of_its_reader() -> None:
    """In a post-norm network B reads the encoder's output at ssm_act; a dense layer would read it at act."""
    u, W = normal(1, L, B, 6), normal(2, 4, 6)
    arithmetic, Q = distinct(small_config(prenorm=False)), Quantizer("aqt")
    source = signal(u, "encoder")
    projected = arithmetic.input_projection(f"{SSM}.Bu", source, Complex(jnp.asarray(W), jnp.asarray(W)))
    B_q = Q.tensor(W, WIDTHS["b"]).T
    assert_close(projected.value[..., :4], Q.groups(u, WIDTHS["ssm_act"], (0, 1)) @ B_q)
    dense = arithmetic.dot("decoder", source, jnp.asarray(W).T, None)
    assert_close(dense.value, Q.groups(u, WIDTHS["act"], (1,)) @ Q.tensor(W, WIDTHS["dense"]).T)


def test_an_override_of_a_site_is_what_its_readers_see() -> None:
    x, W = normal(1, B, 6), normal(2, 6, 4)
    Q = Quantizer("aqt")
    arithmetic = distinct(overrides=(("pool", 3), ("decoder.weight", 2)))
    got = arithmetic.dot("decoder", signal(x, "pool"), jnp.asarray(W), None)
    assert_close(got.value, Q.groups(x, 3, (0,)) @ Q.tensor(W, 2))


def test_a_spec_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="schedule=parallel, got sequential"):
        DynamicArithmetic.of(QuantSpec(), small_config())
    with pytest.raises(UserError, match=r"'layers\.7.*fits no site"):
        distinct(overrides=(("layers.7.gelu", 4),))
    with pytest.raises(UserError, match=r"both directions on one scale.*got 4 and 8"):
        distinct(small_config(bidirectional=True), overrides=(("*.state_out", 4),))


# -- scales -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logits_of() -> Any:
    """A jitted W8A8 network with every operator quantized, on time-major inputs."""
    changes: dict[str, Any] = {"norm": "layer", "gelu": "qgelu", "gate": "hard_sigmoid", "layers": 1}
    model = small_model(**changes, bidirectional=True)
    arithmetic = DynamicArithmetic.of(spec_with(8), model.config)
    return jax.jit(lambda x: forward(model, x, arithmetic=arithmetic).value)


def test_examples_do_not_share_scales(logits_of: Any) -> None:
    x = jnp.swapaxes(small_inputs(B=3), 0, 1)
    louder = x.at[:, 1].multiply(100.0)
    got, expected = logits_of(louder), logits_of(x)
    np.testing.assert_array_equal(got[jnp.array([0, 2])], expected[jnp.array([0, 2])])
    assert float(jnp.abs(got[1] - expected[1]).max()) > 1e-3


def louder_step(x: np.ndarray) -> np.ndarray:
    """The same, with the last step a thousand times as loud."""
    return np.concatenate([x[:-1], 1000 * x[-1:]])


def test_steps_of_an_ssm_product_do_not_share_scales() -> None:
    u, W = normal(1, L, B, 6), jnp.asarray(normal(2, 4, 6))
    got, expected = (
        distinct().input_projection(f"{SSM}.Bu", signal(v, "layers.0.norm"), Complex(W, W)).value
        for v in (louder_step(u), u)
    )
    np.testing.assert_array_equal(got[:-1], expected[:-1])


def test_steps_of_a_dense_product_share_a_scale() -> None:
    x, W = normal(1, L, B, 6), jnp.asarray(normal(2, 6, 6))
    got, expected = (
        distinct().dot("layers.0.gate", signal(v, "layers.0.gelu"), W, None).value
        for v in (louder_step(x), x)
    )
    assert float(jnp.abs(got[:-1] - expected[:-1]).min(axis=(0, 2)).max()) > 0.0


# -- networks ---------------------------------------------------------------------------------------------

NETWORKS: dict[str, dict[str, Any]] = {
    "post-norm, bidirectional": {"prenorm": False, "bidirectional": True, "activation": "full_glu"},
    "retrieval": {"head": "retrieval", "activation": "half_glu2", "gelu": "qgelu"},
    "qln": {"norm": "layer", "norm_bias": False, "gelu": "qgelu", "gate": "hard_sigmoid"},
    "regression": {"head": "regression", "activation": "gelu", "norm": "layer"},
}


@pytest.mark.parametrize("name", graded(list(NETWORKS), quick=2, slow=2))
def test_a_network_without_bits_is_the_float_network(name: str) -> None:
    model = small_model(layers=1, **NETWORKS[name])
    x = jnp.swapaxes(small_inputs(), 0, 1)
    run = eqx.filter_jit(forward)
    expected = run(model, x, arithmetic=FloatArithmetic()).value
    got = run(model, x, arithmetic=DynamicArithmetic.of(spec_with(None), model.config)).value
    assert_close(got, np.asarray(expected), FLOAT_TOLERANCE)
    near = run(model, x, arithmetic=DynamicArithmetic.of(spec_with(16), model.config)).value
    assert 0 < float(jnp.abs(near - expected).max()) < SIXTEEN_BITS


def test_equal_arithmetics_are_compiled_once() -> None:
    traces = []

    @eqx.filter_jit
    def run(arithmetic: DynamicArithmetic, x: jax.Array) -> jax.Array:
        traces.append(arithmetic)
        return arithmetic.enter("input", x).value

    for bits in (8, 8, 4):
        run(DynamicArithmetic.of(spec_with(bits), small_config()), jnp.ones(3))
    assert len(traces) == 2


@pytest.fixture(scope="module")
def gradient_of() -> Any:
    """Gradient of a loss of a small network under a spec."""
    changes: dict[str, Any] = {"norm": "layer", "gelu": "qgelu", "gate": "hard_sigmoid", "layers": 1}
    model = small_model(**changes)
    x = jnp.swapaxes(small_inputs(L=3), 0, 1)  # a level of the scan's tree less to compile than for 4 steps

    @functools.cache
    def gradient(spec: QuantSpec | None) -> Any:
        arithmetic = FloatArithmetic() if spec is None else DynamicArithmetic.of(spec, model.config)
        loss = lambda m: jnp.sum(jnp.sin(forward(m, x, arithmetic=arithmetic).value))  # noqa: E731
        return eqx.filter_jit(eqx.filter_grad(loss))(model)

    return gradient


def relative_distance(got: Any, expected: Any) -> float:
    """Largest over the parameters of |got - expected| / |expected|, Euclidean norms."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)


def test_gradients_pass_straight_through(gradient_of: Any) -> None:
    """Of every parameter: near the float network's, the nearer the more bits; and not zero."""
    expected = gradient_of(None)
    distances = [relative_distance(gradient_of(spec_with(bits)), expected) for bits in (16, 8, 4)]
    assert distances[0] < 0.01 < distances[1] < 0.3
    assert distances[1] < distances[2]


@pytest.mark.parametrize("bits", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_the_quantized_backward_pass_is_another_one(gradient_of: Any, bits: int) -> None:
    got, other = (gradient_of(spec_with(bits, quantized_backward=q)) for q in (True, False))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(got))
    distance = relative_distance(got, other)
    assert distance > 1e-3
    if bits == 8:
        assert distance < 0.3
