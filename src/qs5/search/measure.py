"""How good an integer model is on some sequences, and how far from the float one."""

import time
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
from qs5.training.evaluate import Progress, full_batches, predict

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """What an integer model answers to a split, and what that is worth.

    outputs: (N, classes), or (N, L, d_out) of a regression, in the unit of the targets. metric: the task's.
    seconds: of making raw samples and running the engine, over all sequences.
    """

    outputs: np.ndarray
    metric: float
    seconds: float


def judge(
    model: IntegerModel,
    task: Task,
    split: Split,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Judged:
    """Run an integer model on all of a split; engine: of this model, else the native one, or the reference where it
    was not built.

    Raises IntegerModelError where the data do not fit the model.
    """
    if engine is None:
        engine = integer.engine(model, "auto")
    started = time.monotonic()
    codes = all_logits(engine, raw_of(model, split.x), split.lengths, progress)
    seconds = time.monotonic() - started
    outputs = real_outputs(model, codes)
    # Labels are told by the codes, as on a device: the scale of the logits does not matter.
    metric = score(task, split, codes if model.task == "classification" else outputs)
    return Judged(outputs=outputs, metric=metric, seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """divergence: from the float model's outputs, see `divergence`. metric: the task's. n: sequences."""

    divergence: float
    metric: float
    n: int


def measure(model: IntegerModel, task: Task, sample: Sample) -> Measured:
    """Run an integer model on a sample, in the native engine where it was built."""
    judged = judge(model, task, sample.split)
    return Measured(
        divergence=divergence(task, sample, judged.outputs), metric=judged.metric, n=len(sample.split)
    )


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
