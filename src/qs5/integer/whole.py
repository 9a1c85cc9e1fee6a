"""Whole data sets through an engine: raw samples in, codes and what they mean out. NumPy only."""

from collections.abc import Iterator

import numpy as np

from qs5.integer.engine import Engine
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel

BATCH = 100


def raw_of(model: IntegerModel, x: np.ndarray) -> np.ndarray:
    """Measurements (N, L, D) as the raw samples that a model takes: its own whole numbers, or codes of reals
    where it says how to make them.

    Raises IntegerModelError when the channels do not fit, or whole numbers are expected and others are given.
    """
    source, channels = model.input.source, model.input.out.channels
    expected = 1 if source == "token" else channels
    if x.ndim != 3 or x.shape[2] != expected:
        raise IntegerModelError(
            f"expected {expected} input channels, got {x.shape[-1]}; give the channels of the training"
        )
    d = model.description
    if source == "codes" and d.scale:
        codes = np.floor(x.astype(np.float64) * np.asarray(d.scale) + np.asarray(d.offset) + 0.5)
        return np.clip(codes, model.input.out.low, model.input.out.high).astype(np.int64)
    whole = x.astype(np.int64)
    if not np.array_equal(whole, x):
        raise IntegerModelError(
            f"expected whole numbers ({source}), got others such as {x[whole != x].flat[0]}"
        )
    return whole


def batched(count: int, size: int = BATCH) -> Iterator[slice]:
    """Slices of at most `size` over `count` sequences."""
    return (slice(i, min(i + size, count)) for i in range(0, count, size))


def all_logits(
    engine: Engine, raw: np.ndarray, lengths: np.ndarray | None, progress: object = None
) -> np.ndarray:
    """Codes of the last signal for every sequence."""
    parts = []
    for part in batched(len(raw)):
        parts.append(engine.logits(raw[part], None if lengths is None else lengths[part]))
        if callable(progress):
            progress(min(part.stop, len(raw)), len(raw))
    return np.concatenate(parts)


def real_outputs(model: IntegerModel, codes: np.ndarray) -> np.ndarray:
    """Codes of the last signal in the unit of the targets."""
    exponent = model.output.exponent
    return codes * 2.0 ** (0 if exponent is None else exponent)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over sequences, in nats; logits (B, classes) real, labels (B,)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=-1))
    return float(np.mean(log_sum - shifted[np.arange(len(labels)), labels]))
