"""The loop: which model is selected, when it stops; what one step does to the model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.grades import graded
from tests.support import assert_same_bits, small_model, small_task

from qs5.errors import DivergedError, UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.files import named_arrays
from qs5.model.network import S5Model, forward
from qs5.model.recurrence import scan_sequential
from qs5.tasks.task import Split, Task
from qs5.training import loop
from qs5.training.checkpoints import TrainState
from qs5.training.evaluate import Evaluation
from qs5.training.loop import EpochReport, Observer, Stepper, StepReport, batch_loss, compiler_options, fit
from qs5.training.options import TrainOptions

# float32 statistics of values of size 1, against float64.
STATISTICS_TOLERANCE = 1e-5

MonkeyPatch = pytest.MonkeyPatch


def float_fit(model: S5Model, task: Task, options: TrainOptions, **more: Any) -> TrainState:
    return fit(model, task, arithmetic_for=lambda _: FloatArithmetic(), options=options, **more)


def model_for(task: Task, **changes: Any) -> S5Model:
    return small_model(**{"d_in": task.d_in, "d_out": task.d_out, "layers": 1, **changes})


def count_up(model: S5Model, opt_state: Any, *_: Any) -> tuple[S5Model, Any, jax.Array]:
    """A training step that adds 1 to the decoder's offset; its loss is the new offset."""
    bias = model.decoder.bias + 1.0
    return eqx.tree_at(lambda m: m.decoder.bias, model, bias), opt_state, bias[0]


@pytest.fixture
def scripted(monkeypatch: MonkeyPatch) -> Callable[..., tuple[TrainState, list[EpochReport]]]:
    """A function: `fit` with `count_up` for a step and given validation metrics; 4 steps an epoch."""

    def run(metrics: list[float], *, task: Task | None = None, **options: Any) -> Any:
        task, script, reports = task or small_task(), iter(metrics), list[EpochReport]()
        judged = lambda *_, **__: Evaluation(metric=next(script), loss=0.5, n=10)  # noqa: E731
        monkeypatch.setattr(loop, "evaluate", judged)
        monkeypatch.setattr(loop, "make_stepper", lambda *_, **__: Stepper(count_up, optax.identity()))
        observer = Observer(epoch=lambda report, *_: reports.append(report))
        run = options.pop("run", None)
        training = TrainOptions(**{"epochs": len(metrics), "batch_size": 6, **options})
        return float_fit(zeroed(task), task, training, run=run, observer=observer), reports

    return run


def zeroed(task: Task) -> S5Model:
    return eqx.tree_at(lambda m: m.decoder.bias, model_for(task), jnp.zeros(3))


def steps_of(model: S5Model) -> float:
    """How many times `count_up` was applied."""
    return float(model.decoder.bias[0])


def test_the_epoch_of_the_best_validation_metric_is_selected(scripted: Any):
    state, reports = scripted([0.1, 0.6, 0.5, 0.4])
    assert (state.best_epoch, state.best_metric, state.epoch) == (2, 0.6, 4)
    assert steps_of(state.best_model) == 2 * 4
    assert steps_of(state.model) == 4 * 4
    assert [report.best for report in reports] == [True, True, False, False]
    assert [report.metric for report in reports] == [0.1, 0.6, 0.5, 0.4]
    assert reports[1].train_loss == (5 + 6 + 7 + 8) / 4


def test_the_first_of_equally_good_epochs_is_selected(scripted: Any):
    assert scripted([0.5, 0.5])[0].best_epoch == 1


def test_an_error_is_better_when_it_is_smaller(scripted: Any):
    state, reports = scripted([2.0, 0.5, 1.0], task=small_task(metric="rmse"))
    assert (state.best_epoch, state.best_metric) == (2, 0.5)
    assert [report.best for report in reports] == [True, True, False]


@pytest.mark.parametrize(
    ("metrics", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.3, 0.6], 2, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.4, 0.7], 2, 5),
        ([0.5, 0.4, 0.6, 0.5], 1, 2),
        ([0.5, 0.4, 0.3, 0.2], None, 4),
    ],
)
def test_training_stops_after_so_many_epochs_without_a_better_one(
    metrics: list[float], patience: int | None, epochs: int, scripted: Any
):
    assert scripted(metrics, patience=patience)[0].epoch == epochs


def test_a_run_that_lost_patience_is_not_continued(scripted: Any, tmp_path: Path):
    metrics = [0.5, 0.4, 0.3, 0.9]
    first, _ = scripted(metrics, patience=2, run=tmp_path)
    again, reports = scripted(metrics, patience=2, run=tmp_path)
    assert reports == []
    assert_same_bits(again, first)


def test_observers_hear_of_every_step_with_the_mean_loss_so_far(monkeypatch: MonkeyPatch):
    reports: list[StepReport] = []
    monkeypatch.setattr(loop, "make_stepper", lambda *_, **__: Stepper(count_up, optax.identity()))
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: Evaluation(metric=0.5, loss=0.5, n=10))
    task = small_task()
    float_fit(
        zeroed(task), task, TrainOptions(epochs=2, batch_size=10), observer=Observer(step=reports.append)
    )
    assert reports == [(1, 1, 2, 1.0), (1, 2, 2, 1.5), (2, 1, 2, 3.0), (2, 2, 2, 3.5)]


def test_a_batch_larger_than_the_training_split_is_refused():
    task = small_task()
    with pytest.raises(UserError, match=r"at least one batch of 27 training sequences, got 26: lower"):
        float_fit(model_for(task), task, TrainOptions(batch_size=27))


def test_batches_are_a_function_of_seed_epoch_and_step():
    task, drawn = small_task(), {}
    for seed in (0, 1):
        for epoch in (0, 1):
            options = TrainOptions(batch_size=6, seed=seed)
            for batch, key, n, steps in loop.batches_of_epoch(task, options, epoch):
                assert steps == 4
                drawn[seed, epoch, n] = (batch.x.tobytes(), jax.random.key_data(key).tobytes())
    assert len(drawn) == len({x for x, _ in drawn.values()}) == len({key for _, key in drawn.values()}) == 16
    again = next(loop.batches_of_epoch(task, TrainOptions(batch_size=6, seed=1), 1))
    assert drawn[1, 1, 1] == (again[0].x.tobytes(), jax.random.key_data(again[1]).tobytes())


STILL = TrainOptions(epochs=2, batch_size=6, ssm_lr=0.0, lr=0.0)


def same_sequences() -> Task:
    """Every training sequence is the same, so that a loss depends on the order of nothing."""
    task = small_task()
    return small_task(train=task.train.take(np.zeros(26, np.int64)))


def test_every_step_draws_its_own_dropout(monkeypatch: MonkeyPatch):
    """Same sequences, no learning: only the masks tell the losses of the steps apart."""
    task, losses, make = same_sequences(), list[float](), loop.make_stepper

    def listening(*arguments: Any, **options: Any) -> Stepper:
        stepper = make(*arguments, **options)

        def step(*inputs: Any) -> Any:
            result = stepper.step(*inputs)
            losses.append(float(result[2]))
            # The same key gives the same mask, hence the same loss.
            assert float(stepper.step(*inputs)[2]) == losses[-1]
            return result

        return Stepper(step, stepper.optimizer)

    monkeypatch.setattr(loop, "make_stepper", listening)
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: Evaluation(metric=0.5, loss=0.5, n=10))
    float_fit(model_for(task, dropout=0.5), task, STILL)
    assert len(losses) == 8
    assert len(set(losses)) == 8


def one_step(model: S5Model, task: Task, options: TrainOptions) -> tuple[S5Model, Split]:
    """The model after one training step, and the batch."""
    stepper = loop.make_stepper(model, task, options, 4)
    state = loop.initial_state(model, stepper.optimizer, task)
    batch, key, *_ = next(loop.batches_of_epoch(task, options, 0))
    after, *_ = stepper.step(model, state.opt_state, batch.x, batch.y, batch.lengths, key, FloatArithmetic())
    return after, Split(x=batch.x, y=batch.y, lengths=batch.lengths)


def test_a_step_moves_the_running_statistics_towards_the_batchs():
    task = same_sequences()
    model = model_for(task, dropout=0.5)
    after, batch = one_step(model, task, STILL)
    # The first norm sees the encoder's output, which no dropout touches; the encoding is 0.5 raw + 0.25.
    encoded = (0.5 * batch.x.astype(np.float64) + 0.25) @ np.asarray(model.encoder.weight)
    h = encoded + np.asarray(model.encoder.bias)
    for name, value in (("mean", h.mean((0, 1))), ("var", h.var((0, 1)))):
        before, moved = (np.asarray(getattr(m.layers[0].norm, name)) for m in (model, after))
        np.testing.assert_allclose(moved, 0.95 * before + 0.05 * value, rtol=STATISTICS_TOLERANCE)
    # At a learning rate of zero the optimiser changes nothing.
    statistics = {"layers.0.norm.mean", "layers.0.norm.var"}
    new = named_arrays(after)
    for name, array in named_arrays(model).items():
        assert np.array_equal(array, new[name]) != (name in statistics), name


def test_frozen_statistics_stay_while_every_parameter_moves():
    task = small_task()
    model = model_for(task)
    options = TrainOptions(epochs=2, batch_size=6, freeze_statistics=True, weight_decay=0.5, warmup_epochs=0)
    after, _ = one_step(model, task, options)
    statistics = {"layers.0.norm.mean", "layers.0.norm.var"}
    new = named_arrays(after)
    for name, array in named_arrays(model).items():
        assert np.array_equal(array, new[name]) == (name in statistics), name


def test_the_loss_of_a_batch_is_the_mean_over_its_valid_steps():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 5, 1)).astype(np.float32)
    lengths, encoding = np.array([5, 2, 3], np.int32), small_task().encoding
    model = small_model(d_in=1, d_out=1, layers=1, head="regression", norm="layer")

    @jax.jit
    def loss(x: jax.Array, y: jax.Array) -> jax.Array:
        return batch_loss(
            model, x, y, jnp.asarray(lengths), jax.random.key(0),
            arithmetic=FloatArithmetic(), encoding=encoding, loss="mse", batch_stats=True,
        )[0]  # fmt: skip

    out = forward(model, np.swapaxes(0.5 * x + 0.25, 0, 1), arithmetic=FloatArithmetic())
    error = np.square(np.swapaxes(np.asarray(out.value), 0, 1) - y)[..., 0]
    expected = np.mean([row[:n].mean() for row, n in zip(error, lengths, strict=True)])
    np.testing.assert_allclose(loss(x, y), expected, rtol=STATISTICS_TOLERANCE)
    padding = np.arange(5)[None, :, None] >= lengths[:, None, None]
    assert loss(np.where(padding, np.float32(9.0), x), np.where(padding, np.float32(1e6), y)) == loss(x, y)


@pytest.mark.parametrize("scan", graded([None, scan_sequential], quick=1, slow=1))
def test_remat_changes_no_gradient_and_needs_less_memory(scan: Any):
    """With dropout and batch statistics, in the native kernel where it is there (None), and in JAX."""
    model = small_model(d_in=1, d_out=3, layers=3, H=32, P=32, dropout=0.1)
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(8, 500, 1)), jnp.float32), jnp.arange(8) % 3
    encoding = small_task().encoding

    def compiled(remat: bool) -> Any:
        @partial(jax.jit, compiler_options=compiler_options(remat=remat))
        def value_and_grad(model: S5Model) -> Any:
            def loss(model: S5Model) -> jax.Array:
                return batch_loss(
                    model, x, y, None, jax.random.key(0), arithmetic=FloatArithmetic(scan=scan),
                    encoding=encoding, loss="cross_entropy",
                    batch_stats=True, remat=remat,
                )[0]  # fmt: skip

            return jax.value_and_grad(loss)(model)

        return value_and_grad.lower(model).compile()

    whole, again = compiled(False), compiled(True)
    assert again.memory_analysis().temp_size_in_bytes < 0.7 * whole.memory_analysis().temp_size_in_bytes
    for a, b in zip(jax.tree.leaves(whole(model)), jax.tree.leaves(again(model)), strict=True):
        # Two programs sum in other orders, and batch norm's gradients cancel; another dropout mask would be off by 1.
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(a)


def test_logits_of_nan_are_no_accuracy(monkeypatch: MonkeyPatch):
    """They all fall to one class, which some examples have."""
    monkeypatch.setattr(loop, "make_stepper", lambda *_, **__: Stepper(count_up, optax.identity()))
    task = small_task()
    nan = dataclasses.replace(task.validation, x=np.full_like(task.validation.x, np.nan, np.float32))
    with pytest.raises(UserError, match="training diverged"):
        float_fit(
            model_for(task), dataclasses.replace(task, validation=nan), TrainOptions(epochs=1, batch_size=6)
        )


def test_training_that_diverges_is_an_error_that_says_so():
    """Targets of NaN make every validation metric NaN: no epoch can be the best one. Nor is there anything left to
    learn after the first, whose steps made every parameter NaN."""
    y = np.full((8, 12, 1), np.nan, np.float32)
    x = np.zeros((8, 12, 1), np.float32)
    split = Split(x=x, y=y, lengths=None)
    task = small_task(
        train=split, validation=split, test=split, classes=None, objective="regression", metric="rmse"
    )
    model = small_model(d_in=1, d_out=1, layers=1, head="regression")
    options, epochs = TrainOptions(epochs=3, batch_size=8, warmup_epochs=0.0), []
    observer = Observer(epoch=lambda report, *_: epochs.append(report.epoch))
    with pytest.raises(UserError, match="training diverged"):
        fit(model, task, arithmetic_for=lambda _: FloatArithmetic(), options=options, observer=observer)
    assert epochs == [1]


def test_the_arithmetic_is_asked_for_again_within_an_epoch(monkeypatch: MonkeyPatch) -> None:
    """5 steps an epoch, asked every 2: before steps 1, 3 and 5, of the model as it is then; judged under the last."""
    monkeypatch.setattr(loop, "ARITHMETIC_STEPS", 2)
    monkeypatch.setattr(loop, "make_stepper", lambda *_, **__: Stepper(count_up, optax.identity()))
    asked, given, judged = list[float](), list[FloatArithmetic](), list[Any]()

    def arithmetic_for(model: S5Model) -> FloatArithmetic:
        asked.append(float(model.decoder.bias[0]))
        given.append(FloatArithmetic())
        return given[-1]

    observer = Observer(epoch=lambda _report, _model, arithmetic: judged.append(arithmetic))
    task = small_task()
    options = TrainOptions(epochs=2, batch_size=len(task.train) // 5)
    fit(zeroed(task), task, arithmetic_for=arithmetic_for, options=options, observer=observer)
    assert asked == [0.0, 2.0, 4.0, 5.0, 7.0, 9.0]
    assert judged[0] is given[2] and judged[1] is given[5]


@pytest.mark.parametrize(("limit", "epochs"), [(8.0, 2), (0.0, 0)])
def test_a_calibration_that_fails_ends_training_and_keeps_the_best_epoch(
    limit: float, epochs: int, monkeypatch: MonkeyPatch
) -> None:
    """4 steps an epoch, each adds 1: the model of the start of an epoch is at the limit after 2, or at once."""
    monkeypatch.setattr(loop, "make_stepper", lambda *_, **__: Stepper(count_up, optax.identity()))

    def arithmetic_for(model: S5Model) -> FloatArithmetic:
        if model.decoder.bias[0] >= limit:
            raise DivergedError("no finite values")
        return FloatArithmetic()

    task = small_task()
    options = TrainOptions(epochs=5, batch_size=len(task.train) // 4)
    if epochs:
        state = fit(zeroed(task), task, arithmetic_for=arithmetic_for, options=options)
        assert state.epoch == epochs and state.best_epoch > 0
        return
    with pytest.raises(DivergedError, match="training diverged") as caught:
        fit(zeroed(task), task, arithmetic_for=arithmetic_for, options=options)
    assert str(caught.value.__cause__) == "no finite values"
