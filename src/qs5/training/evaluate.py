"""Loss and metric of a model on a split, under any arithmetic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.model.arithmetic import Arithmetic
from qs5.model.network import S5Model, batch_major, forward
from qs5.tasks import losses
from qs5.tasks.batches import Batch, batches
from qs5.tasks.metrics import score
from qs5.tasks.task import Encoding, Loss, OneHot, Split, Task

Progress = Callable[[int, int], None]
"""Called with (examples done, examples in all)."""


@dataclass(frozen=True)
class Evaluation:
    """metric: the task's, accuracy in [0, 1], rmse in the targets' unit, smape or smape_running in 0 to 200; loss: mean
    over examples; n: examples; confusion: see `confusion`."""

    metric: float
    loss: float
    n: int
    confusion: tuple[tuple[int, ...], ...] | None = None


def encode(x: jax.Array, encoding: Encoding | OneHot) -> jax.Array:
    """Raw (B, L, d) to the network's time-major real input (L, B, D)."""
    if isinstance(encoding, OneHot):
        return jax.nn.one_hot(jnp.swapaxes(x[:, :, 0], 0, 1), encoding.width, dtype=jnp.float32)
    scale = jnp.asarray(encoding.scale, jnp.float32)[None, None, :]
    offset = jnp.asarray(encoding.offset, jnp.float32)[None, None, :]
    return jnp.swapaxes(x.astype(jnp.float32) * scale + offset, 0, 1)


def example_loss(value: jax.Array, y: jax.Array, lengths: jax.Array | None, loss: Loss) -> jax.Array:
    """The loss of each example, (B,): of labels, or of the targets of valid steps."""
    if loss == "cross_entropy":
        return losses.cross_entropy(value, y)
    return (losses.mse if loss == "mse" else losses.smape)(value, y, lengths)


@eqx.filter_jit
def predict(
    model: S5Model,
    x: jax.Array,
    lengths: jax.Array | None,
    arithmetic: Arithmetic,
    encoding: Encoding | OneHot,
) -> jax.Array:
    """Outputs for raw x (B, L, D): logits (B, classes) or (B, L, d_out)."""
    out = forward(model, encode(x, encoding), arithmetic=arithmetic, lengths=lengths)
    return batch_major(out.value, model.config)


def evaluate(
    model: S5Model,
    split: Split,
    *,
    task: Task,
    arithmetic: Arithmetic,
    batch_size: int = 100,
    progress: Progress | None = None,
) -> Evaluation:
    """Mean loss and the task's metric over all of `split`, in evaluation mode."""
    outputs: list[np.ndarray] = []
    loss_sum, done = 0.0, 0
    for batch in full_batches(split, batch_size):
        lengths = None if batch.lengths is None else jnp.asarray(batch.lengths)
        value = predict(model, jnp.asarray(batch.x), lengths, arithmetic, task.encoding)
        n = min(batch_size, len(split) - done)
        loss = np.asarray(_example_loss(value, batch.y, lengths, task.loss), np.float64)
        loss_sum += float(np.sum(loss[:n]))
        outputs.append(np.asarray(value[:n]))
        done += n
        if progress:
            progress(done, len(split))
    everything = np.concatenate(outputs)
    metric = score(task, split, everything)
    return Evaluation(
        metric=metric, loss=loss_sum / done, n=done, confusion=confusion(task, split, everything)
    )


def confusion(task: Task, split: Split, logits: np.ndarray) -> tuple[tuple[int, ...], ...] | None:
    """How many sequences of each class (row) were taken for each class (column); None for regression."""
    if task.classes is None:
        return None
    table = np.zeros((task.d_out, task.d_out), np.int64)
    np.add.at(table, (split.y, np.argmax(logits, axis=-1)), 1)
    return tuple(tuple(int(n) for n in row) for row in table)


_example_loss = jax.jit(example_loss, static_argnames="loss")


def full_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """All of a split; the last batch is filled up by repeating its first sequence, so one shape is compiled."""
    size = min(batch_size, len(split))
    missing = -len(split) % size
    order = np.concatenate([np.arange(len(split)), np.full(missing, len(split) + missing - size)])
    return batches(split, order=order, batch_size=size, drop_last=False)
