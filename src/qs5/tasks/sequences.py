"""`Sequences`: what every reader of user data produces, before it is divided and encoded.

Axes: N sequences, L steps of the longest, d channels, d_out targets a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qs5.tasks.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """User data, checked: finite, right-padded with 0, with labels or targets.

    x: (N, L, d) uint8, int16 or float32.
    lengths: (N,) int32 in 1..L.
    labels: (N,) integers or strings, or None.
    targets: (N, L, d_out) float32, or None. Exactly one of labels and targets is given.
    split: (N,) strings "train", "validation" or "test", or None when the data does not say.
    channels, outputs: names of the d channels and the d_out targets, where the data has names.
    """

    x: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None
    targets: np.ndarray | None
    split: np.ndarray | None = None
    channels: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Number of sequences N."""
        return self.x.shape[0]


def storable(array: np.ndarray, *, what: str) -> np.ndarray:
    """`array` as uint8, int16 or float32, whichever holds its type or (for wider integers) its values.

    Integers beyond 16 bits become float32, which is exact up to 2^24. DataError when it is not numeric.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # JAX takes native byte order only
    if array.dtype.name in ("uint8", "int16", "float32"):
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind in "iu":
        small = array.size == 0 or (array.min() >= -(2**15) and array.max() < 2**15)
        return array.astype(np.int16 if small else np.float32)
    return as_float(array, what=what)


def as_float(array: np.ndarray, *, what: str) -> np.ndarray:
    """`array` as float32. Raises DataError when it is not numeric."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"expected real numbers in {what}, got type {array.dtype}; convert it")
    with np.errstate(over="ignore"):  # too large becomes inf, which the check for finite values reports
        return array.astype(np.float32, copy=False)


def blank_padding(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`array` (N, L, ...) with zeros at and past each length."""
    valid = np.arange(array.shape[1]) < lengths[:, None]
    return array if valid.all() else np.where(valid[:, :, None], array, array.dtype.type(0))


def check_finite(array: np.ndarray, *, what: str) -> None:
    """Raise DataError at the first NaN or inf in `array` (N, L, d), telling its place (counted from 0)."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    sequence, step, channel = np.argwhere(~np.isfinite(array))[0]
    raise DataError(
        f"expected finite float32 numbers in {what}, got {array[sequence, step, channel]} at sequence "
        f"{sequence}, step {step}, channel {channel}; repair or drop it (if it is padding, give the lengths)"
    )


def pad(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Joined steps (T, d) with offsets (N + 1,) to (N, L, d), right-padded with 0; L is the longest."""
    lengths = np.diff(offsets)
    valid = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros((*valid.shape, flat.shape[1]), flat.dtype)
    padded[valid] = flat
    return padded


def join(parts: dict[str, Sequences]) -> Sequences:
    """The sequences of several splits as one, padded to the longest, with `split` set to the keys of `parts`.

    Raises DataError when the splits differ in channels, targets or kind of label.
    """
    values = list(parts.values())
    _check_alike(parts)
    longest = max(part.x.shape[1] for part in values)
    targets = [part.targets for part in values if part.targets is not None]
    labels = [part.labels for part in values if part.labels is not None]
    return Sequences(
        x=np.concatenate([_extend(part.x, longest) for part in values]),
        lengths=np.concatenate([part.lengths for part in values]),
        labels=np.concatenate(labels) if labels else None,
        targets=np.concatenate([_extend(target, longest) for target in targets]) if targets else None,
        split=np.repeat(list(parts), [len(part) for part in values]),
        channels=values[0].channels,
        outputs=values[0].outputs,
    )


def _extend(array: np.ndarray, length: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (0, length - array.shape[1]), (0, 0)))


def _check_alike(parts: dict[str, Sequences]) -> None:
    first_name, first = next(iter(parts.items()))
    for name, part in parts.items():
        if _kind(part) != _kind(first):
            raise DataError(
                f"expected {name} to be like {first_name} ({_kind(first)}), got {_kind(part)}; "
                "give all splits the same channels and the same kind of y"
            )


def _kind(part: Sequences) -> str:
    """Channels and kind of target in words, which two splits of one data set must share."""
    if part.targets is not None:
        return f"{part.x.shape[2]} channels, {part.targets.shape[2]} targets a step"
    letters = part.labels is not None and part.labels.dtype.kind == "U"
    return f"{part.x.shape[2]} channels, {'string' if letters else 'integer'} labels"
