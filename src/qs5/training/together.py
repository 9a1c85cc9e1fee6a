"""Many models of one shape trained at once: the step of `loop.fit` under `jax.vmap`.

Every member has a task, an initialisation and an order of batches of its own; what it becomes is what `fit` alone would
make of it, up to the rounding of sums in another order. Small models gain most: one program is compiled for all.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, init_model, trainable
from qs5.tasks.metrics import score
from qs5.tasks.task import Encoding, Loss, OneHot, Task
from qs5.training.checkpoints import Checkpoints
from qs5.training.evaluate import full_batches, predict
from qs5.training.loop import Stepper, batches_of_epoch, compiled, steps_per_epoch, training_step
from qs5.training.options import TrainOptions

CHECKPOINT_SECONDS = 30.0
"""Least time between two checkpoints: an epoch of small models is shorter than writing one."""


class Member(NamedTuple):
    """One of the models: where it starts, what it is trained on, and the seed of the order of its batches."""

    model: S5Model
    task: Task
    seed: int


class TogetherState(NamedTuple):
    """What one epoch hands to the next; arrays have a leading axis of N members."""

    model: S5Model
    best_model: S5Model
    opt_state: Any
    epoch: int
    """Epochs finished."""
    best_metric: tuple[float, ...]
    best_epoch: tuple[int, ...]
    """1-based epoch that gave a member's `best_model`; 0 where no epoch gave a finite metric."""
    curves: jax.Array
    """(epochs, 2, N) float32: mean training loss and validation metric after each epoch; NaN for epochs to come."""


Watcher = Callable[[TogetherState, float], None]
"""Told after every epoch: the state, and the seconds that the epoch took."""


def fit_together(
    members: Sequence[Member],
    *,
    arithmetic: Arithmetic,
    options: TrainOptions,
    run: Path | None = None,
    watcher: Watcher = lambda *_: None,
) -> TogetherState:
    """Train all members for `options.epochs` epochs; each is selected on its own validation metric.

    arithmetic: of all members in all epochs, so one whose scales belong to no model: float, or dynamic.
    options: `seed` is each member's own; `patience` must be None, since they all stop together.
    run: a folder for checkpoints; training goes on from the last one there.
    Raises UserError when the members do not fit together.
    """
    _check(members, options)
    task, config = members[0].task, members[0].model.config
    steps = steps_per_epoch(task, options)
    stepper = _stepper(config, task.encoding, task.loss, options.replace(seed=0), steps)
    state = _initial(members, stepper, options)
    with contextlib.closing(Checkpoints(run)) if run else contextlib.nullcontext() as checkpoints:
        if checkpoints:
            state = checkpoints.restore(state) or state
        saved = time.monotonic()
        while state.epoch < options.epochs:
            begin = time.monotonic()
            state = _epoch(state, members, stepper, arithmetic, options)
            if checkpoints and (
                state.epoch == options.epochs or time.monotonic() - saved > CHECKPOINT_SECONDS
            ):
                checkpoints.save(state)
                saved = time.monotonic()
            watcher(state, time.monotonic() - begin)
    return state


def outputs_together(
    models: S5Model, tasks: Sequence[Task], split: str, *, arithmetic: Arithmetic, batch_size: int
) -> np.ndarray:
    """What stacked models answer, each on that split of its own task: (N, sequences, ...) as from `predict`."""
    splits, found = [task.splits[split] for task in tasks], []
    for parts in zip(*(full_batches(s, batch_size) for s in splits), strict=True):
        x = np.stack([batch.x for batch in parts])
        found.append(np.asarray(_predict(models, x, None, arithmetic, tasks[0].encoding)))
    return np.concatenate(found, axis=1)[:, : len(splits[0])]


_predict = eqx.filter_jit(eqx.filter_vmap(predict, in_axes=(0, 0, None, None, None)))


def stack(models: Sequence[S5Model]) -> S5Model:
    """Models of one configuration as one tree, whose arrays have a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


@functools.cache
def _stepper(
    config: ModelConfig, encoding: Encoding | OneHot, loss: Loss, options: TrainOptions, steps: int
) -> Stepper:
    """The step of all members, compiled once for all calls that differ in numbers only."""
    model = eqx.filter_eval_shape(init_model, jax.random.key(0), config)
    step, optimizer = training_step(model, encoding, loss, options, steps)
    axes = (0, 0, 0, 0, None, 0, None)  # of the model, its optimiser, x, y, lengths, key, arithmetic
    return Stepper(compiled(eqx.filter_vmap(step, in_axes=axes), options), optimizer)


def _check(members: Sequence[Member], options: TrainOptions) -> None:
    if options.patience is not None:
        raise UserError("models that are trained together stop together: leave out patience")
    if not members:
        raise UserError("expected at least one model to train, got none")
    shapes = {_shape_of(member) for member in members}
    if len(shapes) > 1:
        raise UserError(
            "models that are trained together need one configuration and tasks of one shape, got "
            + " and ".join(sorted(map(str, shapes)))
        )
    if members[0].task.train.lengths is not None:
        raise UserError("sequences of different lengths are not trained together; train one model at a time")


def _shape_of(member: Member) -> tuple[Any, ...]:
    t = member.task
    sizes = tuple((name, split.x.shape, split.y.shape) for name, split in t.splits.items())
    return member.model.config, t.metric, t.encoding, sizes


def _initial(members: Sequence[Member], stepper: Stepper, options: TrainOptions) -> TogetherState:
    models, n = stack([member.model for member in members]), len(members)
    opt_state = eqx.filter_vmap(stepper.optimizer.init)(eqx.filter(models, trainable(members[0].model)))
    worst = -math.inf if members[0].task.higher_is_better else math.inf
    curves = jnp.full((options.epochs, 2, n), jnp.nan, jnp.float32)
    return TogetherState(models, models, opt_state, 0, (worst,) * n, (0,) * n, curves)


def _epoch(
    state: TogetherState,
    members: Sequence[Member],
    stepper: Stepper,
    arithmetic: Arithmetic,
    options: TrainOptions,
) -> TogetherState:
    model, opt_state, losses = state.model, state.opt_state, []
    orders = [batches_of_epoch(m.task, options.replace(seed=m.seed), state.epoch) for m in members]
    for parts in zip(*orders, strict=True):
        x, y = (np.stack([getattr(batch, name) for batch, *_ in parts]) for name in ("x", "y"))
        keys = jnp.stack([key for _, key, *_ in parts])
        model, opt_state, loss = stepper.step(model, opt_state, x, y, None, keys, arithmetic)
        losses.append(np.asarray(loss))
    tasks = [m.task for m in members]
    outputs = outputs_together(
        model, tasks, "validation", arithmetic=arithmetic, batch_size=options.eval_batch_size
    )
    metrics = tuple(score(t, t.validation, out) for t, out in zip(tasks, outputs, strict=True))
    curves = state.curves.at[state.epoch].set(jnp.asarray([np.mean(losses, axis=0), metrics]))
    after = state._replace(model=model, opt_state=opt_state, epoch=state.epoch + 1, curves=curves)
    # Outputs of NaN have an accuracy too: that of the class they all fall to.
    finite = [bool(np.isfinite(out).all()) for out in outputs]
    return _selected(after, metrics, finite, higher=tasks[0].higher_is_better)


def _selected(
    state: TogetherState, metrics: tuple[float, ...], finite: Sequence[bool], *, higher: bool
) -> TogetherState:
    """The state with the best of every member so far."""
    sign = 1.0 if higher else -1.0
    better = [
        ok and sign * new > sign * old
        for ok, new, old in zip(finite, metrics, state.best_metric, strict=True)
    ]

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(jnp.asarray(better).reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return state._replace(
        best_model=jax.tree.map(choose, state.model, state.best_model),
        best_metric=tuple(np.where(better, metrics, state.best_metric).tolist()),
        best_epoch=tuple(np.where(better, state.epoch, state.best_epoch).tolist()),
    )
