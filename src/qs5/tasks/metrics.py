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
        squared = squared[_valid(pred, lengths)]
    return float(np.sqrt(np.mean(squared)))


def smape(pred: np.ndarray, target: np.ndarray, lengths: np.ndarray | None) -> float:
    """200 mean(|y - p| / (|y| + |p|)) over all valid steps and outputs, 0 (right) to 200; 0 / 0 counts as 0.

    pred, target: (N, L, d_out). lengths: (N,) or None.
    Source: Q-S5 appendix B.2 as its code has it: a plain mean.
    """
    ratio = _relative(pred, target)
    return float(200.0 * np.mean(ratio if lengths is None else ratio[_valid(pred, lengths)]))


def smape_running(pred: np.ndarray, target: np.ndarray, lengths: np.ndarray | None) -> float:
    """The mean over t of epsilon(t) = 200/t sum_{t' <= t} |y(t') - p(t')| / (|y(t')| + |p(t')|).

    The formula as the paper prints it (Q-S5 appendix B.2), which is a function of t: here averaged over t, outputs
    and sequences. Its value at the last step is `smape`. Early errors weigh more than late ones.
    """
    ratio = _relative(pred, target)
    steps = np.arange(1, pred.shape[1] + 1)[None, :, None]
    epsilon = 200.0 * np.cumsum(ratio, axis=1) / steps
    return float(np.mean(epsilon if lengths is None else epsilon[_valid(pred, lengths)]))


def _relative(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    p, y = pred.astype(np.float64), target.astype(np.float64)
    size = np.abs(y) + np.abs(p)
    return np.abs(y - p) / np.where(size > 0.0, size, 1.0)


def _valid(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(N, L) true before the end of each sequence."""
    return np.arange(x.shape[1]) < lengths[:, None]


_REGRESSION = {"rmse": rmse, "smape": smape, "smape_running": smape_running}


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
    if classes:
        return accuracy(outputs, split.y)
    return _REGRESSION[task.metric](outputs, split.y, split.lengths)
