"""Parameter groups, and the first updates by hand."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import shapes_of, small_config, small_model

from qs5.errors import UserError
from qs5.model.config import ModelConfig
from qs5.model.files import named_arrays
from qs5.model.network import S5Model, trainable
from qs5.training.optimizer import groups, make_optimizer
from qs5.training.options import OptConfig, TrainOptions

# float32, updates relative to themselves.
TOLERANCE = 1e-5

OPTIONS = TrainOptions(epochs=2, ssm_lr=0.01, lr=0.03, weight_decay=0.1, warmup_epochs=0)
RATES = {"ssm": (0.01, 0.0), "ssm_decay": (0.01, 0.1), "regular": (0.03, 0.1)}
"""(learning rate, weight decay) a group, under OPTIONS."""

SSM = ("B_re", "B_im", "C_re", "C_im", "D", "Lambda_re", "Lambda_im", "log_step")


def by_leaf(options: TrainOptions) -> dict[str, str]:
    """Group of each parameter of layer 1, of the SSM by its name alone."""
    shapes = shapes_of(small_config(activation="full_glu", head="retrieval"))
    tree = groups(shapes, options)
    layer = tree.layers[1]
    found = {name: getattr(layer.ssm, name) for name in SSM}
    found |= {"norm.scale": layer.norm.scale, "norm.bias": layer.norm.bias}
    dense = [tree.encoder, layer.value, layer.gate, tree.hidden, tree.decoder]
    assert {label for d in dense for label in (d.weight, d.bias)} == {"regular"}
    assert (layer.norm.mean, layer.norm.var) == (None, None)
    return found


STANDARD = {
    **dict.fromkeys(("Lambda_re", "Lambda_im", "log_step", "B_re", "B_im"), "ssm"),
    **dict.fromkeys(("C_re", "C_im", "D"), "regular"),
    **dict.fromkeys(("norm.scale", "norm.bias"), "ssm"),
}


@pytest.mark.parametrize(
    ("opt_config", "changes"),
    [
        ("standard", {}),
        ("BfastandCdecay", {"B_re": "regular", "B_im": "regular"}),
        ("BandCdecay", {"B_re": "ssm_decay", "B_im": "ssm_decay"}),
        ("noBCdecay", {"C_re": "ssm", "C_im": "ssm", "D": "ssm"}),
    ],
)
@pytest.mark.parametrize("dt_global", [False, True])
@pytest.mark.parametrize("quirks", [False, True])
def test_groups(opt_config: OptConfig, changes: dict[str, str], dt_global: bool, quirks: bool):
    expected = STANDARD | changes
    if dt_global:
        expected |= {"log_step": "regular"}
    if quirks:
        expected |= {"norm.scale": "regular", "norm.bias": "regular"}
    options = TrainOptions(opt_config=opt_config, dt_global=dt_global, official_quirks=quirks)
    assert by_leaf(options) == expected


def test_an_unknown_configuration_is_refused():
    with pytest.raises(UserError, match=r"opt_config must be one of standard, BfastandCdecay, .*got 'fast'"):
        TrainOptions(opt_config="fast")  # type: ignore[arg-type]


@functools.cache
def compiled(config: ModelConfig, options: TrainOptions) -> tuple[Any, Any]:
    """Initial state and update of the optimiser of such a model."""
    optimizer = make_optimizer(shapes_of(config), options, steps_per_epoch=4)
    return optimizer.init, jax.jit(optimizer.update)


def updates(model: S5Model, gradient: Any, options: TrainOptions, *, count: int = 1) -> list[S5Model]:
    """The first updates of a model whose parameters and gradient stay the same."""
    init, update = compiled(model.config, options)
    parameters = eqx.filter(model, trainable(model))
    state, found = init(parameters), []
    for _ in range(count):
        change, state = update(gradient, state, parameters)
        found.append(change)
    return found


def gradient_like(model: S5Model, scale: float) -> S5Model:
    rng = np.random.default_rng(3)
    draw = lambda p: jnp.asarray(scale * rng.normal(size=p.shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, eqx.filter(model, trainable(model)))


def assert_updates(got: S5Model, expected: dict[str, np.ndarray]) -> None:
    arrays = named_arrays(got)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=TOLERANCE, atol=1e-9, err_msg=name)


def adam_by_hand(model: S5Model, gradient: S5Model, options: TrainOptions) -> dict[str, np.ndarray]:
    """-lr (g / (|g| + 1e-8) + decay p): Adam's first update, where both moments are those of one gradient."""
    labels = jax.tree.leaves(groups(model, options))
    parameters, gradients = named_arrays(eqx.filter(model, trainable(model))), named_arrays(gradient)
    expected = {}
    for (name, p), label in zip(parameters.items(), labels, strict=True):
        rate, decay = RATES[label]
        g = gradients[name].astype(np.float64)
        expected[name] = -rate * (g / (np.abs(g) + 1e-8) + decay * p)
    return expected


@pytest.mark.parametrize("opt_config", ["standard", "BandCdecay"])
def test_first_update_is_adams_with_decay_outside_the_ssm_group_only(opt_config: OptConfig):
    model, options = small_model(), OPTIONS.replace(opt_config=opt_config)
    gradient = gradient_like(model, 1.0)
    (got,) = updates(model, gradient, options)
    assert_updates(got, adam_by_hand(model, gradient, options))


def test_without_gradient_the_ssm_group_stays_where_it_is():
    model = small_model()
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(model, trainable(model)))
    (got,) = updates(model, zero, OPTIONS)
    labels, arrays = jax.tree.leaves(groups(model, OPTIONS)), named_arrays(got)
    still = {name for name, label in zip(arrays, labels, strict=True) if label == "ssm"}
    assert "layers.0.ssm.B_re" in still
    assert "layers.1.norm.scale" in still
    for name, array in arrays.items():
        assert bool((array == 0).all()) == (name in still), name


def test_running_statistics_get_no_update():
    model = small_model()
    (got,) = updates(model, gradient_like(model, 1.0), OPTIONS)
    assert [(layer.norm.mean, layer.norm.var) for layer in got.layers] == [(None, None)] * 2


def test_the_gradient_is_clipped_before_adam():
    """Far below Adam's epsilon the size of the gradient shows in the update; after Adam it would not."""
    model, limit = small_model(), 1e-6
    gradient = gradient_like(model, 5.0)
    norm = np.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in jax.tree.leaves(gradient)))
    clipped = jax.tree.map(lambda g: g * np.float32(limit / norm), gradient)
    (got,) = updates(model, gradient, OPTIONS.replace(clip_norm=limit))
    assert_updates(got, adam_by_hand(model, clipped, OPTIONS))
    (small,) = updates(model, clipped, OPTIONS.replace(clip_norm=1.0))
    assert_updates(small, adam_by_hand(model, clipped, OPTIONS))


def test_each_group_follows_the_schedule_from_step_to_step():
    """Without gradient only the decay is left, -lr(k) decay p; 2 warm-up steps, then 6 of a cosine."""
    model = small_model()
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(model, trainable(model)))
    got = updates(model, zero, OPTIONS.replace(warmup_epochs=0.5, opt_config="BandCdecay"), count=6)
    factors = [0.5, 1.0, 1.0, (1 + np.cos(np.pi / 6)) / 2, 0.75, 0.5]
    for update, factor in zip(got, factors, strict=True):
        for change, p, rate in (
            (update.encoder.weight, model.encoder.weight, 0.03),
            (update.layers[0].ssm.B_re, model.layers[0].ssm.B_re, 0.01),
        ):
            np.testing.assert_allclose(change, -factor * rate * 0.1 * np.asarray(p), rtol=TOLERANCE)
