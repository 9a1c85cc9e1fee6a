"""The whole-layer kernel against the layer that the network composes from single operations: values and gradients."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import small_inputs, small_model

from qs5.kernels import native
from qs5.kernels.layer import LayerArrays, check_shapes
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.network import S5Model, forward
from qs5.model.recurrence import scan_sequential
from qs5.quantization.build import static_arithmetic
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.spec import spec_of
from qs5.quantization.static import StaticArithmetic

pytestmark = pytest.mark.skipif(not native.available(), reason="no native kernels")

FLOAT_TOLERANCE = 2e-5
"""Of the largest element of an array: float32, sums in another order, a logistic in place of a tanh."""
QUANTIZED_TOLERANCE = 0.02
"""The same for gradients where one in some thousand values may fall on the other side of a rounding threshold."""

SIZES = [(1, 1), (2, 2), (3, 5), (17, 2), (40, 9)]
"""(L, B). Statistics of a batch norm need more than one value: see _batch_stats."""


def _probe(model: S5Model, arithmetic: Arithmetic, *, L: int, B: int, batch_stats: bool) -> Any:
    """Everything that a forward pass gives and every gradient, also with respect to the carried states."""
    x = jnp.swapaxes(small_inputs(B=B, L=L), 0, 1)
    rng = np.random.default_rng(3)
    S = 2 * model.config.modes
    starts = tuple(jnp.asarray(rng.normal(size=(B, S)), jnp.float32) for _ in model.layers)

    def loss(inputs: Any) -> Any:
        model, starts = inputs
        out = forward(
            model, x, arithmetic=arithmetic, key=jax.random.key(0), batch_stats=batch_stats, states=starts
        )
        ends = sum(jnp.sum(jnp.cos(state)) for state in out.states)
        return jnp.sum(jnp.sin(3.0 * out.value)) + ends, (out.value, out.states, out.statistics)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))((model, starts))


def _assert_close(mine: Any, theirs: Any, tolerance: float) -> None:
    for (path, a), (_, b) in zip(
        *(jax.tree_util.tree_leaves_with_path(t) for t in (mine, theirs)), strict=True
    ):
        scale = float(np.max(np.abs(b), initial=0.0)) + 1e-3
        np.testing.assert_allclose(a, b, rtol=0.0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def test_float_arithmetic_takes_whole_layers_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FloatArithmetic().takes_whole_layers
    assert not FloatArithmetic(scan_sequential).takes_whole_layers
    monkeypatch.setenv(native.VARIABLE, "0")
    assert not FloatArithmetic().takes_whole_layers


@pytest.mark.parametrize(("L", "B"), SIZES)
def test_sizes(L: int, B: int) -> None:
    # Two layers where one hands its statistics to the next; elsewhere one is enough.
    model = small_model(dropout=0.3, layers=2 if L == 17 else 1)
    args: dict[str, Any] = {"L": L, "B": B, "batch_stats": L * B > 4}
    expected = _probe(model, FloatArithmetic(scan_sequential), **args)
    _assert_close(_probe(model, FloatArithmetic(), **args), expected, FLOAT_TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer"},
        {"norm": "layer", "norm_bias": False, "H": 7},
        {"gelu": "qgelu", "gate": "hard_sigmoid"},
        {"H": 33, "P": 34, "conj_sym": False},
        # Two layers of this size with these weights would multiply float32's rounding by a hundred.
        {"H": 96, "P": 128, "dropout": 0.1},
    ],
    ids=str,
)
def test_options(changes: dict[str, Any]) -> None:
    model = small_model(layers=1, **changes)
    args: dict[str, Any] = {"L": 17, "B": 5, "batch_stats": True}
    expected = _probe(model, FloatArithmetic(scan_sequential), **args)
    _assert_close(_probe(model, FloatArithmetic(), **args), expected, FLOAT_TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [{"bidirectional": True}, {"activation": "half_glu2"}, {"activation": "gelu"}, {"prenorm": False}],
    ids=str,
)
def test_other_layers_are_composed_from_operations(changes: dict[str, Any]) -> None:
    model = small_model(layers=1, **changes)
    args: dict[str, Any] = {"L": 5, "B": 2, "batch_stats": False}
    expected = _probe(model, FloatArithmetic(scan_sequential), **args)
    _assert_close(_probe(model, FloatArithmetic(), **args), expected, FLOAT_TOLERANCE)


def _static(model: S5Model, spec: str) -> tuple[StaticArithmetic, StaticArithmetic]:
    """With kernels and without."""
    x = jnp.swapaxes(small_inputs(B=9, L=40), 0, 1)
    resolved = spec_of(spec)
    plan = plan_grids(calibrate(model, [(x, None)], data="test"), resolved, model.config)
    arithmetic = static_arithmetic(resolved, model.config, plan)
    return arithmetic, dataclasses.replace(arithmetic, kernels=False)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        ("W8A8Abar16", {"dropout": 0.3}),
        ("W4A8", {"H": 16, "P": 32}),
        ("W8A8,state=float", {"norm": "layer"}),
        ("W8A8,residual=float,act=float", {"H": 7, "P": 6}),
    ],
    ids=str,
)
def test_quantized(spec: str, changes: dict[str, Any]) -> None:
    model = small_model(**{"layers": 1, **changes})
    native_kernels, composed = _static(model, spec)
    assert native_kernels.takes_whole_layers and not composed.takes_whole_layers
    args: dict[str, Any] = {"L": 17, "B": 5, "batch_stats": False}
    mine, expected = (_probe(model, a, **args) for a in (native_kernels, composed))
    _assert_close(mine, expected, QUANTIZED_TOLERANCE)


def test_arrays_that_do_not_fit_are_refused() -> None:
    sizes = {"x": (3, 2, 5), "gain": (5,), "offset": (5,), "a": (4,), "B": (5, 4), "C": (4, 5), "D": (5,),
             "W": (5, 5), "b": (5,), "m1": (0, 0), "m2": (2, 5), "x0": (2, 4), "grids": (0, 0, 0)}  # fmt: skip
    arrays = LayerArrays(**{name: jnp.zeros(shape) for name, shape in sizes.items()})
    check_shapes(arrays)
    for name in sizes:
        if name != "x":
            with pytest.raises(ValueError, match=f"{name}: expected"):
                check_shapes(arrays._replace(**{name: jnp.zeros((9, 9))}))
