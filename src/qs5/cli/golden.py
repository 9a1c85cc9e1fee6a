"""Golden vectors: what the reference answers, in the form that emitted code is tested with."""

from collections.abc import Sequence

import numpy as np

from qs5.backends import reference
from qs5.backends.c99 import Golden
from qs5.integer.model import IntegerModel

LENGTHS = (1, 2, 33)


def golden_of(model: IntegerModel, sequences: Sequence[np.ndarray] | None = None) -> Golden:
    """The reference's logits (classes,), or outputs (L, outputs), of raw sequences (L, D); of noise if None."""
    chosen = noise(model) if sequences is None else list(sequences)
    return Golden(
        sequences=chosen,
        answers=[reference.logits(model, np.asarray(s, np.int64)[None])[0] for s in chosen],
    )


def noise(model: IntegerModel, lengths: Sequence[int] = LENGTHS) -> list[np.ndarray]:
    """Uniform raw samples over the whole range, the same in every call: (L, D) for each of `lengths`, which are cut to
    the model's max_length."""
    rng, (low, high) = np.random.default_rng(0), model.raw_range
    shapes = [(min(L, model.max_length), model.input.out.channels) for L in lengths]
    return [rng.integers(low, high + 1, shape) for shape in shapes]
