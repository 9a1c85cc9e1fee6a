"""Mini-batches of a split, in an order that is a function of (seed, epoch) alone, so a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from qs5.tasks.task import Split


class Batch(NamedTuple):
    """B sequences of a split.

    x: (B, L, d) raw values, as stored (apply the task's encoding).
    y: (B,) int32 labels, or (B, L, d_out) float32 targets.
    lengths: (B,) int32, or None when every sequence has length L.

    Of pairs of documents, x (2B, L, d) and lengths (2B,) hold the first documents, then the second ones, as the
    model's retrieval head takes them.
    """

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray | None


def permutation(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of 0..n-1 in epoch `epoch` (from 0) of a run with `seed`; (n,) int64. Both must be >= 0."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batches(split: Split, *, order: np.ndarray | None, batch_size: int, drop_last: bool) -> Iterator[Batch]:
    """Cut `split` into batches of `batch_size` sequences.

    order: (n,) indices into the split, as from `permutation`; None for the stored order (evaluation).
    drop_last: leave out a last batch with fewer than `batch_size` sequences. Training needs it where shapes
        must not change; evaluation must keep that batch, or the metric is not that of the whole split.
    Raises ValueError, at the call, when batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}; give the number of sequences a batch")
    index = np.arange(len(split)) if order is None else order
    stop = len(index) - len(index) % batch_size if drop_last else len(index)
    return (_gather(split, index[start : start + batch_size]) for start in range(0, stop, batch_size))


def _gather(split: Split, index: np.ndarray) -> Batch:
    part = split.take(index)
    if part.x.ndim == 3:
        return Batch(x=part.x, y=part.y, lengths=part.lengths)
    lengths = None if part.lengths is None else np.concatenate([part.lengths[:, 0], part.lengths[:, 1]])
    return Batch(x=np.concatenate([part.x[:, 0], part.x[:, 1]]), y=part.y, lengths=lengths)
