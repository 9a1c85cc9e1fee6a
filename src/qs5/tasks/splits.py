"""Deterministic divisions of a data set into train, validation and test.

`RandomState` on purpose: its streams are frozen for ever (NumPy's NEP 19), while those of `Generator` may
change between releases. A split must not depend on the installed NumPy.
"""

from __future__ import annotations

import numpy as np

from qs5.tasks.errors import DataError

HELD_OUT = 0.15  # the fraction that goes to validation, and again to test


def check_seed(seed: object) -> None:
    """Raise DataError where `RandomState` takes no such seed."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise DataError(f"expected a seed from 0 to 2^32 - 1, got {seed!r}; correct the option")


def stratified(groups: np.ndarray, *, seed: int, fraction: float = HELD_OUT) -> tuple[np.ndarray, ...]:
    """Split indices so that every group is divided in the same proportions.

    groups: (N,) the class of each sequence (any sortable type).
    fraction: part of each group for validation, and the same part again for test, rounded to nearest.
    Returns train, validation, test: integer arrays that together hold each of 0..N-1 once, in random order.
    """
    random = np.random.RandomState(seed)
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for group in np.unique(groups):
        members = random.permutation(np.flatnonzero(groups == group))
        held_out = round(fraction * len(members))
        cuts = np.split(members, [len(members) - 2 * held_out, len(members) - held_out])
        for part, cut in zip(parts, cuts, strict=True):
            part.append(cut)
    return tuple(random.permutation(np.concatenate(part)) for part in parts)


def hold_out(groups: np.ndarray, *, seed: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Two parts in which every group has the same share: the larger one, and `fraction` of each group.

    groups: (N,) the class of each sequence. Both results are in increasing order.
    """
    random = np.random.RandomState(seed)
    held_out = [
        random.permutation(members)[: round(fraction * len(members))]
        for members in (np.flatnonzero(groups == group) for group in np.unique(groups))
    ]
    mask = np.zeros(len(groups), bool)
    mask[np.concatenate(held_out)] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def two_way(n: int, *, seed: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split 0..n-1 by one permutation: all but the last `fraction`, and the last `fraction` of it."""
    order = np.random.RandomState(seed).permutation(n)
    kept = n - round(fraction * n)
    return order[:kept], order[kept:]
