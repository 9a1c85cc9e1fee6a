"""Golden vectors: what the reference answers, in the form that emitted code is tested with."""

from collections.abc import Sequence

import numpy as np

from qs5.backends import reference
from qs5.backends.c99 import Golden
from qs5.integer import ops as o
from qs5.integer.model import IntegerModel

LENGTHS = (1, 2, 33)


def golden_of(model: IntegerModel, sequences: Sequence[np.ndarray] | None = None) -> Golden:
    """The reference's logits (classes,), or outputs (L, outputs), of raw sequences (L, D); of noise if None."""
    chosen = noise(model) if sequences is None else list(sequences)
    return Golden(
        sequences=chosen,
        answers=[reference.logits(model, np.asarray(s, np.int64)[None])[0] for s in chosen],
    )


def noise(model: IntegerModel) -> list[np.ndarray]:
    """Uniform raw samples over the whole range, the same in every call."""
    rng, (low, high) = np.random.default_rng(0), _raw_range(model)
    shapes = [(min(L, model.max_length), model.input.out.channels) for L in LENGTHS]
    return [rng.integers(low, high + 1, shape) for shape in shapes]


def _raw_range(model: IntegerModel) -> tuple[int, int]:
    q = model.input
    if q.source == "token":
        sizes = [op.tokens for op in model.ops if isinstance(op, o.Embedding) and op.x == q.out.name]
        return 0, min([*sizes, q.out.high + 1]) - 1
    return {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1)}.get(q.source, (q.out.low, q.out.high))
