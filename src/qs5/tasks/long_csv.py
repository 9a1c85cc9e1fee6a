"""Reader of user data in a long-form CSV file: one row a step, with a header line.

    id, time, ax, ay, label          label: one for all rows of a sequence -> classification
    id, time, u, target_x, target_y  target or target_*: one value a step -> regression

Rows of a sequence need not be neighbours. With a time column they are sorted by it; without one the order of
the file counts. An optional column `split` (one for all rows of a sequence) says train, validation or test.
Every column whose name is not one of these is an input channel; the options of `load_custom` rename and
choose columns.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from qs5.tasks.errors import DataError
from qs5.tasks.sequences import Sequences, check_finite, pad

ID_NAMES = ("id", "sequence")
TIME_NAMES = ("time", "step")
Row = tuple[int, list[str]]  # line number in the file (the header is line 1), cells


class CsvReader(Protocol):
    """What `csv.reader` returns."""

    @property
    def line_num(self) -> int:
        """Number of the line that was read last, from 1."""
        ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Column names given by the user; None means the default of this module."""

    id: str | None = None
    time: str | None = None
    label: str | None = None
    split: str | None = None
    targets: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    optional: bool = False
    """Whether a file without labels and targets will do: data to predict from."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of the columns that play each role in one file, and where every column is."""

    position: dict[str, int]
    id: str
    time: str | None
    label: str | None
    split: str | None
    targets: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns that must hold numbers: features, then targets, then time."""
        return self.features + self.targets + ((self.time,) if self.time else ())


class _Words:
    """A column whose value must be the same in all rows of a sequence."""

    def __init__(self, name: str | None, position: dict[str, int]) -> None:
        self.name = name
        self.place = None if name is None else position[name]
        self.values: list[str] = []

    def see(self, sequence: int, row: Row) -> None:
        """Take the value from the first row of `sequence`, and compare it in the others."""
        if self.place is None:
            return
        line, cells = row
        value = cells[self.place].strip()
        if sequence == len(self.values):
            self.values.append(_not_empty(value, line=line, column=self.name))
        elif value != self.values[sequence]:
            raise DataError(
                f"line {line}, column {self.name}: expected {self.values[sequence]!r} as in the earlier rows "
                f"of this sequence, got {value!r}; a {self.name} must not change within a sequence"
            )

    def array(self) -> np.ndarray | None:
        """The values (N,), or None when the file has no such column."""
        return None if self.place is None else np.asarray(self.values)


def read_csv(path: Path, *, columns: Columns, delimiter: str) -> Sequences:
    """The sequences of the file at `path`, numbered in the order of their first rows.

    Raises DataError, with line and column, when its content is not as this module describes.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            return _read(reader, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected CSV text in UTF-8, got {error}; save the file as UTF-8 CSV") from error


def _read(reader: CsvReader, columns: Columns) -> Sequences:
    layout = resolve(next(reader, []), columns)
    places = [layout.position[name] for name in layout.numeric]
    identifier = layout.position[layout.id]
    labels, splits = _Words(layout.label, layout.position), _Words(layout.split, layout.position)
    sequence_of: dict[str, int] = {}
    owner, numbers = array("q"), array("d")
    for row in _rows(reader, width=len(layout.position)):
        key = _not_empty(row[1][identifier].strip(), line=row[0], column=layout.id)
        sequence = sequence_of.setdefault(key, len(sequence_of))
        owner.append(sequence)
        numbers.extend(_numbers(row, layout.numeric, places))
        labels.see(sequence, row)
        splits.see(sequence, row)
    if not owner:
        raise DataError("expected at least one row below the header, got none; the file is empty")
    table = np.frombuffer(numbers, np.float64).reshape(len(owner), len(places))
    table, offsets = _in_order(table, np.frombuffer(owner, np.int64), layout, list(sequence_of))
    return _sequences(table, offsets, layout, labels=labels.array(), split=splits.array())


def resolve(header: list[str], columns: Columns) -> Layout:
    """Which column of `header` plays which role. DataError when one is missing, double or ambiguous."""
    names = [name.strip() for name in header]
    if not any(names):
        raise DataError("expected a header line with column names, got an empty file or line; add the header")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"expected different column names, got {', '.join(repeated)} more than once; rename one"
        )
    time = _pick(columns.time, TIME_NAMES, names, role="time", required=False)
    identifier = _pick(columns.id, ID_NAMES, names, role="id", required=True)
    label = _pick(columns.label, ("label",), names, role="label", required=False)
    split = _pick(columns.split, ("split",), names, role="split", required=False)
    if columns.label and not columns.targets:  # a named label column settles the kind of task
        targets: tuple[str, ...] = ()
    else:
        targets = _targets(columns.targets, names)
        label = None if columns.targets and not columns.label else label
    _check_one_kind(label, targets, names, optional=columns.optional)
    taken = {identifier, time, label, split, *targets}
    features = columns.features or tuple(
        name for name in names if name not in taken and not _is_reserved(name)
    )
    _check_features(features, names=names, taken=taken)
    return Layout(
        position={name: place for place, name in enumerate(names)},
        id=str(identifier),
        time=time,
        label=label,
        split=split,
        targets=targets,
        features=features,
    )


def _pick(
    asked: str | None, defaults: tuple[str, ...], names: list[str], *, role: str, required: bool
) -> str | None:
    wanted = defaults if asked is None else (asked,)
    found = next((name for name in wanted if name in names), None)
    if found is None and (required or asked is not None):
        raise DataError(
            f"expected a column {' or '.join(wanted)}, got {', '.join(names)}; "
            f"add it, or name it with the option {role}_column"
        )
    return found


def _targets(asked: tuple[str, ...] | None, names: list[str]) -> tuple[str, ...]:
    if asked is None:
        return tuple(filter(_is_target, names))
    missing = [name for name in asked if name not in names]
    if missing:
        raise DataError(
            f"expected target columns {', '.join(asked)}, got no {', '.join(missing)}; correct the option"
        )
    return asked


def _is_target(name: str) -> bool:
    return name == "target" or name.startswith("target_")


def _is_reserved(name: str) -> bool:
    """Names that are no input by default: a label column that was not chosen must not leak into them."""
    return name in (*ID_NAMES, *TIME_NAMES, "label", "split") or _is_target(name)


def _check_one_kind(label: str | None, targets: tuple[str, ...], names: list[str], *, optional: bool) -> None:
    if label and targets:
        raise DataError(
            f"expected a label or targets, got both ({label}; {', '.join(targets)}); "
            "choose with the option label_column or target_columns"
        )
    if not label and not targets and not optional:
        raise DataError(
            f"expected a column label, target or target_*, got {', '.join(names)}; "
            "add one, or name it with the option label_column or target_columns"
        )


def _check_features(features: tuple[str, ...], *, names: list[str], taken: set[str | None]) -> None:
    wrong = [name for name in features if name not in names or name in taken]
    if wrong or not features:
        free = [name for name in names if name not in taken]
        raise DataError(
            f"expected feature columns among {', '.join(free) or 'none (every column has another role)'}, "
            f"got {', '.join(wrong) or 'none'}; correct the file or the option feature_columns"
        )


def _rows(reader: CsvReader, *, width: int) -> Iterator[Row]:
    """The rows below the header with their line numbers, blank lines left out."""
    for cells in reader:
        if not cells:
            continue
        line = reader.line_num
        if len(cells) != width:
            raise DataError(
                f"line {line}: expected {width} cells as in the header, got {len(cells)}; "
                "correct the row (or the option delimiter)"
            )
        yield line, cells


def _numbers(row: Row, names: tuple[str, ...], places: list[int]) -> list[float]:
    line, cells = row
    try:
        values = [float(cells[place]) for place in places]
        if all(map(math.isfinite, values)):
            return values
    except ValueError:
        pass
    name, cell = next((n, cells[p]) for n, p in zip(names, places, strict=True) if not _is_number(cells[p]))
    raise DataError(
        f"line {line}, column {name}: expected a finite number, got {cell!r}; "
        "correct it (or choose other columns with the options feature_columns, target_columns, time_column)"
    )


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _not_empty(value: str, *, line: int, column: str | None) -> str:
    if not value:
        raise DataError(f"line {line}, column {column}: expected a value, got an empty cell; fill it")
    return value


def _in_order(
    table: np.ndarray, owner: np.ndarray, layout: Layout, identifiers: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by sequence (and time), and the offsets (N + 1,) of the sequences in them."""
    order = np.argsort(owner, kind="stable")
    if layout.time:
        time = table[:, -1]
        order = np.lexsort((time, owner))
        repeated = np.flatnonzero((np.diff(time[order]) == 0) & (np.diff(owner[order]) == 0))
        if len(repeated):
            row = order[repeated[0]]
            raise DataError(
                f"column {layout.time}: expected every time once in a sequence, got {time[row]:g} twice in "
                f"sequence {identifiers[owner[row]]}; drop or correct one of the rows"
            )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner))])
    return table[order], offsets


def _sequences(
    table: np.ndarray,
    offsets: np.ndarray,
    layout: Layout,
    *,
    labels: np.ndarray | None,
    split: np.ndarray | None,
) -> Sequences:
    with np.errstate(over="ignore"):  # too large becomes inf, which is reported below
        steps = table.astype(np.float32)
    d = len(layout.features)
    x = pad(steps[:, :d], offsets)
    targets = pad(steps[:, d : d + len(layout.targets)], offsets) if layout.targets else None
    check_finite(x, what="the feature columns")
    if targets is not None:
        check_finite(targets, what="the target columns")
    return Sequences(
        x=x,
        lengths=np.diff(offsets).astype(np.int32),
        labels=labels,
        targets=targets,
        split=split,
        channels=layout.features,
        outputs=layout.targets or None,
    )
