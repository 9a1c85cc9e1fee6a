"""The metrics that are reported, on whole splits. NumPy only: integer backends are judged without JAX."""

from __future__ import annotations

import numpy as np

from qs5.tasks.errors import DataError
from qs5.tasks.task import Split, Task


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of sequences whose largest logit (the first among equals) is the label's.

    logits: (N, C), real or integer. labels: (N,) integers.
    """
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def rmse(pred: np.ndarray, target: np.ndarray, lengths: np.ndarray | None) -> float:
    """Root of the mean squared error over all valid steps of all sequences, in the targets' unit.

    pred, target: (N, L, d_out). lengths: (N,) or None. Every valid step weighs the same, so a long sequence
    counts for more than a short one (the mean of `losses.mse` over examples weighs every sequence the same).
    """
    squared = np.square(pred.astype(np.float64) - target)
    if lengths is not None:
        squared = squared[np.arange(pred.shape[1]) < lengths[:, None]]
    return float(np.sqrt(np.mean(squared)))


def score(task: Task, split: Split, outputs: np.ndarray) -> float:
    """The task's metric of a model's `outputs` on all of `split`.

    outputs: (N, C) logits or (N, L, d_out) predictions, in the order of the split.
    Raises DataError when the shape is not the split's: a metric of a part of a split is not reported.
    """
    classes = task.objective == "classification"
    expected = (len(split), task.d_out) if classes else split.y.shape
    if outputs.shape != expected:
        raise DataError(
            f"{task.name}: expected outputs of shape {expected} for this split, got {outputs.shape}; "
            "give one output for every sequence, the last partial batch included"
        )
    return accuracy(outputs, split.y) if classes else rmse(outputs, split.y, split.lengths)
