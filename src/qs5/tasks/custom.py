"""`custom`: the user's own sequences, from a `.npz` file (see `npz`) or a long-form CSV (see `long_csv`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qs5.tasks.errors import DataError
from qs5.tasks.long_csv import Columns, read_csv
from qs5.tasks.npz import read_npz
from qs5.tasks.sequences import Sequences
from qs5.tasks.splits import check_seed, stratified
from qs5.tasks.task import SPLITS, Encoding, Split, Task


def load_custom(
    *,
    path: str,
    data_dir: str | None = None,
    seed: int = 0,
    units: Sequence[str] | None = None,
    id_column: str | None = None,
    time_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    target_columns: Sequence[str] | None = None,
    feature_columns: Sequence[str] | None = None,
    delimiter: str = ",",
) -> Task:
    """The task `custom-<file stem>`: labels give a classification, targets of every step a regression.

    path: a `.npz` or `.csv` file, relative to `data_dir` when that is given.
    seed: of the stratified 70/15/15 split, used when the data does not say which sequence belongs where. Data
        that names train and test only gets its validation split from train.
    units: names or units of the regression outputs; default: the target columns of a CSV file.
    The other options rename columns of a CSV file. Inputs are standardized by the training split (see
    `standardization`); targets stay in their own unit.
    Raises DataError, starting with the path, when the file cannot be used.
    """
    file = Path(path) if data_dir is None else Path(data_dir) / path
    columns = Columns(
        id=id_column,
        time=time_column,
        label=label_column,
        split=split_column,
        targets=_names(target_columns),
        features=_names(feature_columns),
    )
    try:
        check_seed(seed)
        data = _read(file, columns=columns, delimiter=delimiter)
        return _task(f"custom-{file.stem}", data, _indices(data, seed=seed), units=units)
    except (DataError, OSError) as error:
        raise DataError(f"{file}: {error}") from error


def _names(asked: Sequence[str] | None) -> tuple[str, ...] | None:
    """Several names, or one without a list around it."""
    return None if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)


def _read(file: Path, *, columns: Columns, delimiter: str) -> Sequences:
    if not file.is_file():
        raise DataError("expected a file, got nothing at this path; correct it (or data_dir)")
    if file.stat().st_size == 0:
        raise DataError("expected sequences, got an empty file; write it again")
    suffix = file.suffix.lower()
    if suffix == ".npz":
        if columns != Columns():
            raise DataError("expected column options with a .csv file only, got them with .npz; remove them")
        return read_npz(file)
    if len(delimiter) != 1:
        raise DataError(f"expected a delimiter of one character, got {delimiter!r}; correct the option")
    if suffix == ".csv":
        return read_csv(file, columns=columns, delimiter=delimiter)
    raise DataError(f"expected a .npz or .csv file, got {file.suffix or 'no ending'!r}; convert it")


def _task(name: str, data: Sequences, indices: dict[str, np.ndarray], *, units: Sequence[str] | None) -> Task:
    ragged = bool((data.lengths < data.x.shape[1]).any())
    if data.labels is not None:
        classes, y = _encode_labels(data.labels, indices)
    else:
        classes, y = None, np.asarray(data.targets)
    whole = Split(x=data.x, y=y, lengths=data.lengths if ragged else None)
    return Task(
        name=name,
        train=whole.take(indices["train"]),
        validation=whole.take(indices["validation"]),
        test=whole.take(indices["test"]),
        encoding=standardization(data.x[indices["train"]], data.lengths[indices["train"]]),
        classes=classes,
        units=_units(data, _names(units)),
        objective="regression" if classes is None else "classification",
        metric="rmse" if classes is None else "accuracy",
        channels=data.channels,
    )


def _units(data: Sequences, asked: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if asked is None:
        return data.outputs
    d_out = 0 if data.targets is None else data.targets.shape[2]
    if len(asked) != d_out:
        raise DataError(f"expected units for {d_out} regression outputs, got {asked!r}; give one a target")
    return asked


def standardization(x: np.ndarray, lengths: np.ndarray) -> Encoding:
    """The encoding (raw - mean) / std of each channel, over the valid steps of the training split.

    x: (N, L, d). lengths: (N,). A constant channel gets scale 1, hence the value 0 (its std is 0).
    """
    steps = x[np.arange(x.shape[1]) < lengths[:, None]].astype(np.float64)
    # min == max rather than std == 0: the rounded mean of equal numbers may differ from them.
    constant = steps.min(axis=0) == steps.max(axis=0)
    mean = np.where(constant, steps[0], steps.mean(axis=0))
    scale = 1 / np.where(constant, 1.0, steps.std(axis=0))
    return Encoding(scale=tuple(scale.tolist()), offset=tuple((-mean * scale).tolist()))


def _indices(data: Sequences, *, seed: int) -> dict[str, np.ndarray]:
    """Which sequences belong to each split; every split has at least one."""
    if data.split is None:
        groups = _groups(data)
        found: dict[str, np.ndarray] = dict(zip(SPLITS, stratified(groups, seed=seed), strict=True))
    else:
        found = _named_splits(data, seed=seed)
    empty = [name for name, index in found.items() if len(index) == 0]
    if empty:
        raise DataError(
            f"expected sequences for {', '.join(SPLITS)}, got {len(data)} sequences and none for "
            f"{', '.join(empty)}; give more (at least 4 of a class to divide them), or name the splits"
        )
    return found


def _named_splits(data: Sequences, *, seed: int) -> dict[str, np.ndarray]:
    split = np.asarray(data.split)
    unknown = sorted(set(split.tolist()) - set(SPLITS))
    if unknown:
        raise DataError(f"expected splits {', '.join(SPLITS)}, got {', '.join(unknown)}; rename them")
    found = {name: np.flatnonzero(split == name) for name in SPLITS}
    if len(found["validation"]) == 0 and len(found["train"]):
        found["train"], found["validation"] = _hold_out(data, found["train"], seed=seed)
    return found


def _groups(data: Sequences) -> np.ndarray:
    """What a split is stratified by, (N,): the labels, or nothing (one group) for regression."""
    return np.zeros(len(data), np.int64) if data.labels is None else data.labels


def _hold_out(data: Sequences, train: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Take a stratified part of `train` away from it, for validation."""
    kept, held_out, spare = stratified(_groups(data)[train], seed=seed)
    return train[np.concatenate([kept, spare])], train[held_out]


def _encode_labels(labels: np.ndarray, indices: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names (sorted, integers by value) and labels (N,) int32 as positions in them."""
    classes = _ordered(np.unique(labels[indices["train"]]))
    if len(classes) < 2:
        raise DataError(f"expected at least two classes, got {classes[0]!s} only; check the labels")
    code = {label: position for position, label in enumerate(classes)}
    for name in ("validation", "test"):
        unknown = _ordered(np.setdiff1d(labels[indices[name]], classes))
        if unknown:
            raise DataError(
                f"expected labels of {name} among those of train, got {', '.join(map(str, unknown))}; "
                "give train examples of them, or drop them"
            )
    return tuple(map(str, classes)), np.asarray([code[label] for label in labels.tolist()], np.int32)


def _ordered(labels: np.ndarray) -> list[int] | list[str]:
    """Sorted labels; strings that are all integers, such as those of a CSV file, by value."""
    values = labels.tolist()
    try:
        return sorted(values, key=lambda label: (int(label), str(label)))
    except ValueError:
        return sorted(values)
