"""The loss of a fine-tuning that listens to its float parent, against the formulas in NumPy."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import (
    assert_same_bits,
    compiled_forward,
    small_config,
    small_inputs,
    small_model,
    small_task,
)

from qs5.errors import UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import forward
from qs5.quantization.spec import spec_of
from qs5.training import methods, run
from qs5.training.distillation import Teacher, distance, kl_divergence
from qs5.training.loop import fit
from qs5.training.options import TrainOptions
from qs5.training.recipe import Recipe

OPTIONS = TrainOptions(epochs=2, batch_size=8, ssm_lr=5e-3, lr=2e-2, warmup_epochs=0.0, eval_batch_size=10)
RECIPE = Recipe(task="small", model=small_config(d_in=1, d_out=3, layers=1), train=OPTIONS)

compiled_distance = eqx.filter_jit(distance)


def test_the_divergence_is_that_of_the_two_distributions() -> None:
    rng = np.random.default_rng(0)
    t, z = 3.0 * rng.normal(size=(2, 5, 4))
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (t, z))
    np.testing.assert_allclose(
        kl_divergence(jnp.asarray(t), jnp.asarray(z)), (p * np.log(p / q)).sum(1), rtol=1e-4
    )


@pytest.mark.parametrize(("logits", "layers"), [(0.5, 0.0), (0.0, 2.0), (0.5, 2.0)])
def test_the_distance_weighs_logits_and_layers(logits: float, layers: float) -> None:
    x = jnp.swapaxes(small_inputs(), 0, 1)
    one, other = (compiled_forward(small_model(seed), x, arithmetic=FloatArithmetic()) for seed in (0, 1))
    got = compiled_distance(Teacher(small_model(1), logits, layers), one, x, None, loss="cross_entropy")
    p, q = (np.asarray(jax.nn.softmax(out.value), np.float64) for out in (other, one))
    pairs = [(np.asarray(h), np.asarray(g)) for h, g in zip(one.residuals, other.residuals, strict=True)]
    relative = [np.sum((h - g) ** 2) / np.sum(g**2) for h, g in pairs]
    expected = logits * np.mean((p * np.log(p / q)).sum(1)) + layers * np.mean(relative)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_a_network_is_at_no_distance_from_itself_and_another_has_a_gradient() -> None:
    x = jnp.swapaxes(small_inputs(), 0, 1)

    @jax.jit
    def loss(model, teacher):
        out = forward(model, x, arithmetic=FloatArithmetic())
        return distance(Teacher(teacher, 1.0, 1.0), out, x, None, loss="cross_entropy")

    assert abs(loss(small_model(0), small_model(0))) < 1e-6
    of_student, of_teacher = (jax.grad(loss, argnums=i)(small_model(0), small_model(1)) for i in (0, 1))
    assert all(np.any(leaf != 0.0) for leaf in jax.tree.leaves(of_student.encoder))
    assert not any(np.any(leaf != 0.0) for leaf in jax.tree.leaves(of_teacher))


def test_regression_compares_predictions_of_valid_steps() -> None:
    changes = {"head": "regression", "d_out": 1}
    x, lengths = jnp.swapaxes(small_inputs(), 0, 1), jnp.asarray([7, 2, 3, 5])
    one, other = (
        compiled_forward(small_model(s, **changes), x, arithmetic=FloatArithmetic()) for s in (0, 1)
    )
    got = compiled_distance(Teacher(small_model(1, **changes), 1.0, 0.0), one, x, lengths, loss="mse")
    error = np.square(np.asarray(one.value - other.value))[..., 0].T
    expected = np.mean([row[:n].mean() for row, n in zip(error, np.asarray(lengths), strict=True)])
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_fine_tuning_listens_and_its_run_says_so(tmp_path: Path) -> None:
    """The same seed with and without a teacher: other weights, and nearer to the parent's answers."""
    task = small_task()
    parent, info = small_model(layers=1, d_in=1, d_out=3), run.info_of(RECIPE, task)
    spec, x = spec_of("W2A8"), jnp.swapaxes(jnp.asarray(task.train.x, jnp.float32), 0, 1)
    apart = {}
    for weight in (0.0, 30.0):
        options = methods.qaft_options(OPTIONS, lr_factor=1.0, epochs=2, distill=weight)
        out = tmp_path / f"{weight}"
        tuned = methods.qaft(parent, task, spec, parent=info, name="float", options=options, out=out)
        stored = run.read_run(out)
        assert stored.recipe.train.distill == weight
        logits = [
            compiled_forward(m, x, arithmetic=a).value
            for m, a in ((parent, FloatArithmetic()), (tuned, run.arithmetic_of(stored, tuned.config)))
        ]
        apart[weight] = float(jnp.mean(kl_divergence(*logits)))
        assert_same_bits(run.read_model(out).model, tuned)
    assert apart[30.0] < 0.8 * apart[0.0]


def test_training_from_scratch_has_nobody_to_listen_to() -> None:
    task = small_task()
    model = small_model(d_in=1, d_out=3, layers=1)
    with pytest.raises(UserError, match="expected a fine-tuning"):
        fit(model, task, arithmetic_for=lambda _: FloatArithmetic(), options=OPTIONS.replace(distill=1.0))
    with pytest.raises(UserError, match="expected distill_layers >= 0"):
        OPTIONS.replace(distill_layers=-1.0)
