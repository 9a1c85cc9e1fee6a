"""`Task`: a data set with its encoding, splits, metric and the rule that selects the reported checkpoint.

NumPy only. Axis letters in shapes: N sequences of a split, L time steps, d channels, V tokens of a vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from qs5.tasks.errors import DataError

SPLITS = ("train", "validation", "test")
RAW_DTYPES = ("uint8", "int16", "float32")
VALIDATION, PAPER = "best validation metric", "best test metric (as the paper)"
"""The rules that select a checkpoint."""

Metric = Literal["accuracy", "rmse", "smape", "smape_running"]
Loss = Literal["cross_entropy", "mse", "smape"]
LOSSES: dict[Metric, Loss] = {
    "accuracy": "cross_entropy",
    "rmse": "mse",
    "smape": "smape",
    "smape_running": "smape",
}
"""What training minimizes where a metric is reported."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Raw sequences and their targets, as stored (before the encoding).

    x: (N, L, d) uint8, int16 or float32; steps at or past a sequence's length are 0. For a task on pairs of
        documents (N, 2, L, d).
    y: (N,) int32 labels, or (N, L, d_out) float32 targets of every step.
    lengths: (N,) int32 true lengths in 1..L, or None when every sequence has length L. For pairs (N, 2).

    Raises DataError when the shapes or types are not these.
    """

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray | None

    def __post_init__(self) -> None:
        pairs = self.x.ndim == 4 and self.x.shape[1] == 2
        if not (self.x.ndim == 3 or pairs) or self.x.dtype.name not in RAW_DTYPES:
            raise DataError(
                f"expected x of shape (N, L, d), or (N, 2, L, d) for pairs, and type {' or '.join(RAW_DTYPES)}, got "
                f"{self.x.shape} {self.x.dtype}; reshape or convert it"
            )
        _check_targets(self.x, self.y)
        if self.lengths is not None:
            _check_lengths(self.x, self.lengths)

    def __len__(self) -> int:
        """Number of sequences N."""
        return self.x.shape[0]

    def take(self, index: np.ndarray) -> Split:
        """The sequences at `index` (integers), in that order."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Split(x=self.x[index], y=self.y[index], lengths=lengths)

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) over the shapes, types and bytes of x, y and lengths."""
        digest = hashlib.sha256()
        for name in ("x", "y", "lengths"):
            _hash_array(digest, name, getattr(self, name))
        return digest.hexdigest()


def _check_targets(x: np.ndarray, y: np.ndarray) -> None:
    labels = y.ndim == 1 and y.dtype == np.int32 and len(y) == len(x)
    targets = y.ndim == 3 and y.dtype == np.float32 and y.shape[:2] == x.shape[:2]
    if not (labels or targets):
        raise DataError(
            f"expected y of shape ({len(x)},) int32 or ({len(x)}, {x.shape[1]}, d_out) float32 for x of "
            f"shape {x.shape}, got {y.shape} {y.dtype}; give one label a sequence or one target a step"
        )


def _check_lengths(x: np.ndarray, lengths: np.ndarray) -> None:
    if lengths.shape != x.shape[:-2] or lengths.dtype != np.int32:
        raise DataError(
            f"expected lengths of shape {x.shape[:-2]} and type int32, got {lengths.shape} {lengths.dtype}; "
            "give one length a sequence"
        )
    if len(lengths) and (lengths.min() < 1 or lengths.max() > x.shape[-2]):
        raise DataError(
            f"expected lengths between 1 and {x.shape[-2]}, got {lengths.min()} to {lengths.max()}; "
            "drop empty sequences, or pad x to the longest one"
        )


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The affine map from stored values to the model's input: real = scale * raw + offset, per channel.

    scale, offset: one number for each of the d channels. Kept as numbers (rather than applied once and
        forgotten) because lowering folds them into the quantizer of the input.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.offset):
            raise DataError(
                f"expected as many scales as offsets, got {len(self.scale)} and {len(self.offset)}; "
                "give one of each for every channel"
            )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Encode raw (..., d) of any number type; float32 of the same shape.

        Padding is encoded like any other value (0 becomes `offset`); models must mask by length.
        """
        scale = np.asarray(self.scale, np.float32)
        return raw.astype(np.float32) * scale + np.asarray(self.offset, np.float32)

    @property
    def d_in(self) -> int:
        """Number of input channels of the model, which is that of the stored data."""
        return len(self.scale)

    @property
    def stored_channels(self) -> int:
        """Number d of channels of the stored data."""
        return len(self.scale)

    @property
    def numbers(self) -> list[str]:
        """What identifies this encoding, exactly."""
        return [float(number).hex() for number in self.scale + self.offset]


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """The map from a token's number to the unit vector of that number: real_v = 1 if v == raw else 0.

    width: V, the length of the vector; it may exceed the vocabulary (the official code has widths of 135 for text
        and 20 for ListOps, whatever the vocabulary). A dense layer on it is an embedding with a bias.

    Source: lindermanlab/S5, `dataloading.py`, `prep_batch`.
    """

    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 256:
            raise DataError(
                f"expected a width from 1 to 256 (tokens are bytes), got {self.width}; correct it"
            )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Encode token numbers (..., 1) below the width; float32 (..., V).

        Padding is token 0 and is encoded like any other; see `ModelConfig.padding` for what the model does with it.
        """
        return (raw == np.arange(self.width)).astype(np.float32)

    @property
    def d_in(self) -> int:
        """Number of input channels of the model."""
        return self.width

    @property
    def stored_channels(self) -> int:
        """Number of channels of the stored data: the token's number."""
        return 1

    @property
    def numbers(self) -> list[str]:
        """What identifies this encoding, exactly."""
        return ["one-hot", str(self.width)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A data set, ready to train on.

    name: the registered name, or the user's.
    train, validation, test: the three splits; all have the same L and d.
    encoding: raw value -> model input, affine or one-hot.
    classes: names of the classes, indexed by label; None for regression.
    units: names or units of the regression outputs; None where there is nothing to say.
    metric: "accuracy" (higher is better), "rmse" (lower is better, in the unit of the targets), or one of the two
        forms of sMAPE (lower is better, 0 to 200).
    selection: the rule that picks the checkpoint whose test metric is reported.
    channels: names of the d input channels in order, where the data has names; with `OneHot`, the tokens.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    encoding: Encoding | OneHot
    classes: tuple[str, ...] | None
    units: tuple[str, ...] | None
    objective: Literal["classification", "regression"]
    metric: Metric
    selection: str = VALIDATION
    channels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if split.x.shape[1:] != self.train.x.shape[1:]:
                raise DataError(
                    f"expected sequences of shape {self.train.x.shape[1:]} in every split, got "
                    f"{split.x.shape[1:]} in {name}; pad all splits to the same length"
                )
        if self.encoding.stored_channels != self.train.x.shape[-1]:
            raise DataError(
                f"expected an encoding of {self.train.x.shape[-1]} channels, got {self.encoding.stored_channels}; "
                "give one scale and one offset a channel"
            )
        if (self.classes is not None) != (self.objective == "classification"):
            raise DataError(
                f"expected class names exactly for classification, got {self.classes} for {self.objective}; "
                "set classes and objective together"
            )

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def d_in(self) -> int:
        """Number of input channels of the model: d, or V for tokens."""
        return self.encoding.d_in

    @property
    def d_out(self) -> int:
        """Number of model outputs: classes, or regression targets a step."""
        return len(self.classes) if self.classes is not None else self.train.y.shape[-1]

    @property
    def length(self) -> int:
        """Number of time steps L of the stored (padded) sequences."""
        return self.train.x.shape[-2]

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of documents."""
        return self.train.x.ndim == 4

    @property
    def loss(self) -> Loss:
        """What training minimizes."""
        return LOSSES[self.metric]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of `metric` is the better one."""
        return self.metric == "accuracy"

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) over the names, the encoding and the identity of each split.

        Two tasks with the same identity hold the same numbers in the same order, on any machine.
        """
        header = (self.name, self.objective, self.metric, self.classes, self.units, self.channels)
        splits = tuple((name, split.identity) for name, split in self.splits.items())
        return hashlib.sha256(repr((header, self.encoding.numbers, splits)).encode()).hexdigest()


def _hash_array(digest: hashlib._Hash, name: str, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(f"{name}:none;".encode())
        return
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest.update(f"{name}:{array.shape}:{array.dtype.name};".encode())
    digest.update(np.ascontiguousarray(little_endian).data)
