"""The training loop: one for float training, QAT and fine-tuning; only the arithmetic differs."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from qs5.errors import DivergedError, UserError
from qs5.model.arithmetic import Arithmetic
from qs5.model.network import S5Model, batch_major, forward, trainable, with_statistics
from qs5.quantization.static import movable
from qs5.tasks.batches import batches, permutation
from qs5.tasks.task import Encoding, Loss, OneHot, Task
from qs5.training import distillation
from qs5.training.checkpoints import Checkpoints, TrainState
from qs5.training.distillation import Teacher
from qs5.training.evaluate import encode, evaluate, example_loss
from qs5.training.optimizer import make_optimizer
from qs5.training.options import TrainOptions


class StepReport(NamedTuple):
    """After every step: epoch (1-based), step in it (1-based), steps an epoch, running mean of the loss."""

    epoch: int
    step: int
    steps: int
    loss: float


class EpochReport(NamedTuple):
    """After every epoch: mean training loss, validation metric and loss, whether it is the best so far."""

    epoch: int
    train_loss: float
    metric: float
    loss: float
    best: bool
    seconds: float


class Observer(NamedTuple):
    """What is told of the progress; the loop prints nothing itself."""

    step: Callable[[StepReport], None] = lambda _: None
    epoch: Callable[[EpochReport, S5Model, Arithmetic], None] = lambda *_: None


ArithmeticFor = Callable[[S5Model], Arithmetic]
"""The arithmetic of the next steps, given the model before them (QAT from scratch calibrates anew)."""

ARITHMETIC_STEPS = 50
"""An epoch asks for its arithmetic at its start and after every so many steps.

Early on the activations of a network that learns grow many times over within an epoch. Grids that it outgrows cut them
off, and with them the gradient that would hold them back: with grids of the start of an epoch alone, half-size sMNIST
at W8A8 was at chance from its second epoch on.
"""


class Stepper(NamedTuple):
    """A training step with the optimiser that it applies."""

    step: Callable[..., tuple[S5Model, Any, jax.Array]]
    optimizer: optax.GradientTransformation


def make_stepper(
    model: S5Model, task: Task, options: TrainOptions, steps: int, *, teacher: Teacher | None = None
) -> Stepper:
    """`training_step`, compiled for each arithmetic it meets."""
    step, optimizer = training_step(model, task.encoding, task.loss, options, steps, teacher=teacher)
    return Stepper(compiled(step, options), optimizer)


def compiled(step: Callable[..., Any], options: TrainOptions) -> Callable[..., Any]:
    """A training step under jit."""
    # Equinox hands what it does not know to jax.jit, but its overloads do not say so.
    more: dict[str, Any] = {"compiler_options": compiler_options(remat=options.remat)}
    return eqx.filter_jit(step, **more)


def training_step(
    model: S5Model,
    encoding: Encoding | OneHot,
    loss: Loss,
    options: TrainOptions,
    steps: int,
    *,
    teacher: Teacher | None = None,
) -> Stepper:
    """One step, not compiled: (model, opt_state, x, y, lengths, key, arithmetic) -> (model, opt_state, loss).

    steps: an epoch has so many. Of `model` the structure counts, not the numbers.
    teacher: distill from it; its numbers become constants of the step. Raises UserError when the options want one and
    there is none.
    """
    _check_teacher(options, teacher)
    optimizer = make_optimizer(model, options, steps)
    batch_stats = model.config.norm == "batch" and not options.freeze_statistics

    def step(
        model: S5Model, opt_state: Any, x: Any, y: Any, lengths: Any, key: jax.Array, arithmetic: Arithmetic
    ) -> Any:
        trained, fixed = eqx.partition(model, trainable(model))

        def loss_of(trained: S5Model) -> tuple[jax.Array, Any]:
            return batch_loss(
                eqx.combine(trained, fixed), x, y, lengths, key,
                arithmetic=arithmetic, encoding=encoding, loss=loss, batch_stats=batch_stats,
                remat=options.remat, teacher=teacher,
            )  # fmt: skip

        (value, statistics), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
        updates, opt_state = optimizer.update(grads, opt_state, trained)
        model = eqx.combine(eqx.apply_updates(trained, updates), fixed)
        return (with_statistics(model, statistics) if batch_stats else model), opt_state, value

    return Stepper(step, optimizer)


def compiler_options(*, remat: bool) -> dict[str, str]:
    """What XLA must be told. Its CPU scheduler starts early whatever can start early: with remat that would be all the
    second forward passes at once, each with its memory."""
    if not remat or jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def batch_loss(
    model: S5Model,
    x: jax.Array,
    y: jax.Array,
    lengths: jax.Array | None,
    key: jax.Array,
    *,
    arithmetic: Arithmetic,
    encoding: Encoding | OneHot,
    loss: Loss,
    batch_stats: bool,
    remat: bool = False,
    teacher: Teacher | None = None,
) -> tuple[jax.Array, Any]:
    """Mean loss of a raw batch (B, L, D) in training mode, with batch norm's statistics."""
    encoded = encode(x, encoding)
    out = forward(
        model,
        encoded,
        arithmetic=arithmetic,
        lengths=lengths,
        key=key if model.config.dropout > 0.0 else None,
        batch_stats=batch_stats,
        remat=remat,
    )
    value = jnp.mean(example_loss(batch_major(out.value, model.config), y, lengths, loss))
    if teacher is not None:
        value += distillation.distance(teacher, out, encoded, lengths, loss=loss)
    return value, out.statistics


def initial_state(model: S5Model, optimizer: optax.GradientTransformation, task: Task) -> TrainState:
    """The state before the first epoch."""
    opt_state = optimizer.init(eqx.filter(model, trainable(model)))
    worst = -float("inf") if task.higher_is_better else float("inf")
    return TrainState(model, model, opt_state, 0, worst, 0)


def fit(
    model: S5Model,
    task: Task,
    *,
    arithmetic_for: ArithmeticFor,
    options: TrainOptions,
    run: Path | None = None,
    observer: Observer = Observer(),  # noqa: B008  (an immutable value)
    teacher: Teacher | None = None,
) -> TrainState:
    """Train until `options.epochs`, until `patience` runs out or the parameters are no numbers any more; select on the
    validation metric.

    With a folder `run`, the state is checkpointed after every epoch, and a run found there is continued,
    giving bit for bit what an uninterrupted one would have. teacher: of a fine-tuning, where the options want one.
    arithmetic_for: asked at the start of an epoch and every `ARITHMETIC_STEPS` steps; where it raises DivergedError,
    training is over.

    Raises UserError where the training split has no whole batch, or the options want a teacher and there is none;
    DivergedError where no epoch gave a finite validation metric.
    """
    stepper = make_stepper(model, task, options, steps_per_epoch(task, options), teacher=teacher)
    state = initial_state(model, stepper.optimizer, task)
    with contextlib.closing(Checkpoints(run)) if run else contextlib.nullcontext() as checkpoints:
        if checkpoints:
            state = checkpoints.restore(state) or state
        cause = None
        while cause is None and not _over(state, options):
            try:
                state = _epoch(state, stepper, task, arithmetic_for, options, observer)
            except DivergedError as error:
                # There are no grids for a network without finite values. The best epoch so far stands.
                cause = error
            else:
                if checkpoints:
                    checkpoints.save(state)
    if state.best_epoch == 0:
        raise DivergedError(
            f"training diverged: no epoch gave a finite validation {task.metric}; lower the learning rates "
            "(--train.ssm-lr, --train.lr) or clip the gradient (--train.clip-norm)"
        ) from cause
    return state


def _check_teacher(options: TrainOptions, teacher: Teacher | None) -> None:
    if teacher is None and (options.distill or options.distill_layers):
        raise UserError(
            "distill and distill_layers need a float network to learn from: expected a fine-tuning (qs5 quantize RUN "
            "--method qaft), got training from scratch; set both to 0"
        )


def steps_per_epoch(task: Task, options: TrainOptions) -> int:
    """Whole batches of the training split. Raises UserError when there is none."""
    steps = len(task.train) // options.batch_size
    if steps == 0:
        raise UserError(
            f"expected at least one batch of {options.batch_size} training sequences, got {len(task.train)}: "
            "lower the batch size (--train.batch-size)"
        )
    return steps


def _over(state: TrainState, options: TrainOptions) -> bool:
    patience = math.inf if options.patience is None else max(options.patience, 1)
    waited = state.epoch - state.best_epoch
    return state.epoch >= options.epochs or waited >= patience or _lost(state.model)


def _lost(model: S5Model) -> bool:
    """Whether a parameter is NaN or infinite: no step makes it a number again."""
    parameters = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return not all(bool(jnp.isfinite(v).all()) for v in parameters)


def _epoch(
    state: TrainState,
    stepper: Stepper,
    task: Task,
    arithmetic_for: ArithmeticFor,
    options: TrainOptions,
    observer: Observer,
) -> TrainState:
    begin, epoch, losses = time.monotonic(), state.epoch + 1, []
    model, opt_state = state.model, state.opt_state
    arithmetic = arithmetic_for(model)
    argument = movable(arithmetic)
    for batch, key, n, steps in batches_of_epoch(task, options, state.epoch):
        if n > 1 and (n - 1) % ARITHMETIC_STEPS == 0:
            arithmetic = arithmetic_for(model)
            argument = movable(arithmetic)
        model, opt_state, loss = stepper.step(
            model, opt_state, batch.x, batch.y, batch.lengths, key, argument
        )
        losses.append(float(loss))
        observer.step(StepReport(epoch, n, steps, sum(losses[-50:]) / len(losses[-50:])))
    result = evaluate(
        model, task.validation, task=task, arithmetic=arithmetic, batch_size=options.eval_batch_size
    )
    better = result.metric > state.best_metric if task.higher_is_better else result.metric < state.best_metric
    # Logits of NaN have an accuracy too: that of the class they all fall to.
    better = better and math.isfinite(result.loss)
    if better:
        state = state._replace(best_model=model, best_metric=result.metric, best_epoch=epoch)
    seconds = time.monotonic() - begin
    report = EpochReport(epoch, sum(losses) / len(losses), result.metric, result.loss, better, seconds)
    observer.epoch(report, model, arithmetic)
    return state._replace(model=model, opt_state=opt_state, epoch=epoch)


def batches_of_epoch(
    task: Task, options: TrainOptions, epoch: int
) -> Iterator[tuple[Any, jax.Array, int, int]]:
    """(batch, dropout key, number from 1, steps an epoch), all functions of (seed, epoch, step) alone; epoch from 0."""
    steps = steps_per_epoch(task, options)
    order = permutation(len(task.train), seed=options.seed, epoch=epoch)
    key = jax.random.fold_in(jax.random.key(options.seed), epoch)
    chunks = batches(task.train, order=order, batch_size=options.batch_size, drop_last=True)
    for n, batch in enumerate(chunks):
        yield batch, jax.random.fold_in(key, n), n + 1, steps
