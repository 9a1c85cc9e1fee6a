"""How far an integer model is from the float one on some sequences."""

import os
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from qs5 import integer
from qs5.integer.engine import Engine
from qs5.integer.model import IntegerModel
from qs5.integer.whole import all_logits, raw_of, real_outputs
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model
from qs5.tasks.metrics import score
from qs5.tasks.task import Split, Task
from qs5.training.evaluate import full_batches, predict

BATCH = 50


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """Sequences, and what the float model says of them: (N, classes), or (N, L, d_out) of a regression."""

    split: Split
    outputs: np.ndarray


def sample_of(model: S5Model, task: Task, split: Split, examples: np.ndarray) -> Sample:
    """The named examples of a split."""
    part = split.take(examples)
    found = [
        np.asarray(
            predict(
                model,
                jnp.asarray(batch.x),
                None if batch.lengths is None else jnp.asarray(batch.lengths),
                FloatArithmetic(),
                task.encoding,
            )
        )
        for batch in full_batches(part, BATCH)
    ]
    return Sample(split=part, outputs=np.concatenate(found)[: len(part)].astype(np.float64))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """divergence: from the float model's outputs, see `divergence`. metric: the task's. n: sequences."""

    divergence: float
    metric: float
    n: int


def measure(model: IntegerModel, task: Task, sample: Sample) -> Measured:
    """Run an integer model on a sample, in the native engine where it was built."""
    codes = all_logits(engine(model), raw_of(model, sample.split.x), sample.split.lengths, None)
    outputs = real_outputs(model, codes)
    return Measured(
        divergence=divergence(task, sample, outputs),
        metric=score(task, sample.split, codes if task.objective == "classification" else outputs),
        n=len(sample.split),
    )


def engine(model: IntegerModel) -> Engine:
    """The native engine on all threads, or the reference where it was not built."""
    if not integer.available("native"):
        return integer.engine(model, "reference")
    from qs5.backends.native import NativeEngine

    return NativeEngine(model, threads=_threads())


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divergence(task: Task, sample: Sample, outputs: np.ndarray) -> float:
    """Distance from the float model, 0 where nothing is lost, a mean over sequences.

    classification: Kullback-Leibler divergence of the class probabilities, sum_c p_c log(p_c / q_c), in nats, p of the
        float and q of the integer model. It needs no labels, and says more than accuracy, which only moves in whole
        sequences.
    regression: the squared difference over the variance of the float model's outputs, over valid steps.
    """
    if task.objective == "classification":
        p, q = (_log_softmax(v) for v in (sample.outputs, outputs))
        return float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))
    valid = _valid(sample)
    return float(np.mean(np.square(outputs - sample.outputs)[valid]) / (np.var(sample.outputs[valid]) or 1.0))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _valid(sample: Sample) -> np.ndarray:
    """(N, L): true before the end of a sequence."""
    steps = np.arange(sample.outputs.shape[1])
    lengths = sample.split.lengths
    return np.ones(sample.outputs.shape[:2], bool) if lengths is None else steps < lengths[:, None]
