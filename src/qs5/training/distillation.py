"""Distillation: a network that is fine-tuned with few bits also listens to the float network it comes from.

    loss = task loss + distill D + distill_layers F

    D = mean over examples of KL(softmax(t) || softmax(z)) in nats, with logits z, and t of the teacher;
        for regression mean (z - t)^2 over valid steps
    F = mean over layers of sum (h - g)^2 / sum g^2, with the residual streams h after a layer, and g of the teacher

D is zero, and F as well, when both networks agree. The teacher sees the same batch without dropout and with running
statistics, computes in float, and gets no gradient.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015 (temperature 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import Output, S5Model, batch_major, forward
from qs5.tasks import losses
from qs5.tasks.task import Loss
from qs5.training.options import TrainOptions


class Teacher(NamedTuple):
    """The float network, and the weights of what it says: of the logits, of the layers."""

    model: S5Model
    logits: float
    layers: float


def teacher_of(model: S5Model, options: TrainOptions) -> Teacher | None:
    """The teacher that the options ask for; None where both weights are 0."""
    if not (options.distill or options.distill_layers):
        return None
    return Teacher(model, options.distill, options.distill_layers)


def distance(
    teacher: Teacher, student: Output, x: jax.Array, lengths: jax.Array | None, *, loss: Loss
) -> jax.Array:
    """distill D + distill_layers F for one batch.

    student: what the network in training gave for the encoded batch x (L, B, D). lengths: (B,) or None.
    """
    told = forward(teacher.model, x, arithmetic=FloatArithmetic(), lengths=lengths)
    told = jax.tree.map(jax.lax.stop_gradient, told)
    value = teacher.logits * _of_outputs(teacher.model, student.value, told.value, lengths, loss)
    if teacher.layers:
        pairs = list(zip(student.residuals, told.residuals, strict=True))
        value += teacher.layers * sum(_relative(h, g) for h, g in pairs) / len(pairs)
    return value


def _of_outputs(
    model: S5Model, z: jax.Array, t: jax.Array, lengths: jax.Array | None, loss: Loss
) -> jax.Array:
    if loss != "cross_entropy":
        z, t = (batch_major(v, model.config) for v in (z, t))
        return jnp.mean(losses.mse(z, t, lengths))
    return jnp.mean(kl_divergence(t, z))


def kl_divergence(t: jax.Array, z: jax.Array) -> jax.Array:
    """KL(softmax(t) || softmax(z)) of each row, in nats: logits (B, C), gives (B,)."""
    log_p, log_q = jax.nn.log_softmax(t, axis=-1), jax.nn.log_softmax(z, axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _relative(h: jax.Array, g: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(h - g)) / jnp.maximum(jnp.sum(jnp.square(g)), jnp.finfo(g.dtype).tiny)
