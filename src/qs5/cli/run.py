"""`qs5 run MODEL DATA`: predictions of an integer model. Imports no JAX."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qs5.cli import integers
from qs5.errors import UserError
from qs5.integer import whole
from qs5.integer.model import IntegerModel

USAGE = """predict with an integer model on a file or standard input

DATA is one of
  file.npz    x (N, L, d) or (N, L), with lengths if padded; y, if there, gives the accuracy
  file.csv    long form: a row a step, columns as in `qs5 train custom`; labels may be missing
  file.idx    images of the idx format (also .gz, or named *-ubyte), read row by row
  -           standard input: a step a line, numbers between spaces or commas, sequences between empty lines
"""


@dataclass(frozen=True)
class Sequences:
    """x (N, L, d) as stored, true lengths (N,) or None, labels as text or None."""

    x: np.ndarray
    lengths: np.ndarray | None
    labels: list[str] | None


def run(argv: list[str]) -> int:
    """Parse, predict, print one line a sequence."""
    args = _parser().parse_args(argv)
    model, engine, backend = integers.open_engine(args.model, args.backend)
    if args.stream:
        return _stream(model, args)
    data = _read(args.data, model)
    raw = whole.raw_of(model, data.x)
    if args.raw:
        print("\n\n".join(_raw_text(x) for x in _true_length(raw, data.lengths)))
        return 0
    codes = whole.all_logits(engine, raw, data.lengths)
    for i, row in enumerate(codes):
        length = raw.shape[1] if data.lengths is None else int(data.lengths[i])
        print(_line(model, row, length, as_json=args.json))
    if data.labels is not None and model.task == "classification":
        _report(model, codes, data.labels, backend)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qs5 run", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .qs5 file, a folder that holds model.qs5, or a zoo model")
    parser.add_argument("data", help="see above")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "native", "reference", "c99", "onnx"),
        help="what runs it",
    )
    parser.add_argument("--stream", action="store_true", help="step by step: an answer after every step")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="print the whole numbers that the model takes, as the emitted C reads them",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def _line(model: IntegerModel, codes: np.ndarray, length: int, *, as_json: bool) -> str:
    """One sequence's answer: class and logits, or the outputs of every step."""
    if model.task == "regression":
        values = whole.real_outputs(model, codes[:length])
        return json.dumps({"outputs": values.tolist()}) if as_json else _rows(values)
    label = class_name(model, int(np.argmax(codes)))
    if as_json:
        return json.dumps({"class": label, "logits": codes.tolist()})
    return f"{label}\t{' '.join(str(v) for v in codes)}"


def _true_length(raw: np.ndarray, lengths: np.ndarray | None) -> list[np.ndarray]:
    return [x if lengths is None else x[: lengths[i]] for i, x in enumerate(raw)]


def _raw_text(x: np.ndarray) -> str:
    return "\n".join(" ".join(str(v) for v in step) for step in x)


def _rows(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v:.9g}" for v in row) for row in values) + "\n"


def class_name(model: IntegerModel, index: int) -> str:
    """The name of a class, or its number."""
    names = model.description.classes
    return str(index) if names is None else names[index]


def _report(model: IntegerModel, codes: np.ndarray, labels: list[str], backend: str) -> None:
    predicted = [class_name(model, int(i)) for i in np.argmax(codes, axis=-1)]
    right = sum(a == b for a, b in zip(predicted, labels, strict=True))
    accuracy = 100.0 * right / len(labels)
    print(f"accuracy {accuracy:.2f} % of {len(labels)} ({backend} engine)", file=sys.stderr)


# -- streaming -------------------------------------------------------------------------------------------------


def _stream(model: IntegerModel, args: argparse.Namespace) -> int:
    """An answer after every step; a new sequence after an empty line or at the end of one in a file."""
    session = model.stream(args.backend)
    for sample in _samples(args.data, model):
        if sample is None:
            session.reset()
            continue
        out = session.step(whole.raw_of(model, sample[None, None, :])[0, 0])
        codes = session.logits if out is None else out[None, :]
        print(_line(model, codes, 1, as_json=args.json), flush=True)
    return 0


def _samples(data: str, model: IntegerModel) -> Iterator[np.ndarray | None]:
    """Steps (d,), with None between sequences."""
    if data == "-":
        for number, line in enumerate(_input_lines(), 1):
            yield _numbers(line, number) if line.strip() else None
        return
    sequences = _read(data, model)
    for i, x in enumerate(sequences.x):
        yield from x[: len(x) if sequences.lengths is None else sequences.lengths[i]]
        yield None


# -- reading ---------------------------------------------------------------------------------------------------


def _read(data: str, model: IntegerModel) -> Sequences:
    """The sequences of a file or of standard input. Raises UserError."""
    if data == "-":
        return _read_text(_input_lines())
    path = Path(data)
    if not path.is_file():
        raise UserError(f"{path}: expected a data file or -, got nothing at this path; correct it")
    name = path.name.removesuffix(".gz")
    if name.endswith(("ubyte", ".idx")):
        return _read_idx(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".csv":
        return _read_csv(path, model)
    raise UserError(
        f"{path}: expected a .npz, .csv or idx file, got {path.suffix or 'no ending'}; convert it"
    )


def _input_lines() -> Iterator[str]:
    """Lines of standard input. Raises UserError where it is no text."""
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input: expected text in UTF-8, got {error}; give a .npz file by its name instead of -"
        ) from error


def _read_text(lines: Iterable[str]) -> Sequences:
    groups: list[list[np.ndarray]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.strip():
            groups[-1].append(_numbers(line, number))
        elif groups[-1]:
            groups.append([])
    groups = [group for group in groups if group]
    if not groups:
        raise UserError("standard input: expected a step a line, got nothing")
    return _padded(groups)


def _numbers(line: str, number: int) -> np.ndarray:
    try:
        values = np.asarray([float(word) for word in line.replace(",", " ").split()])
    except ValueError as error:
        raise UserError(
            f"line {number}: expected numbers between spaces or commas, got {line.strip()!r}"
        ) from error
    if not np.all(np.isfinite(values)):
        raise UserError(f"line {number}: expected finite numbers, got {line.strip()!r}")
    return values


def _padded(groups: list[list[np.ndarray]]) -> Sequences:
    widths = {len(step) for group in groups for step in group}
    if len(widths) != 1:
        raise UserError(f"expected as many numbers in every step, got {min(widths)} to {max(widths)}")
    lengths = np.asarray([len(group) for group in groups])
    x = np.zeros((len(groups), lengths.max(), widths.pop()))
    for row, group in zip(x, groups, strict=True):
        row[: len(group)] = group
    return Sequences(x, lengths if len(set(lengths.tolist())) > 1 else None, None)


def _read_idx(path: Path) -> Sequences:
    from qs5.tasks import idx

    images = idx.parse(idx.decompress(path.read_bytes(), name=str(path)), name=str(path), axes=3)
    return Sequences(images.reshape(len(images), -1, 1), None, None)


def _read_npz(path: Path) -> Sequences:
    """The arrays x, lengths and y; y is not needed."""
    from qs5.tasks.errors import DataError
    from qs5.tasks.npz import read_arrays

    try:
        return _of_arrays(read_arrays(path, only=("x", "y", "lengths")))
    except DataError as error:
        raise UserError(f"{path}: {error}") from error


def _of_arrays(arrays: dict[str, np.ndarray]) -> Sequences:
    """Checked. Raises DataError."""
    from qs5.tasks.errors import DataError
    from qs5.tasks.npz import true_lengths
    from qs5.tasks.sequences import blank_padding

    x, y, lengths = (arrays.get(name) for name in ("x", "y", "lengths"))
    if x is None:
        raise DataError("expected an array x (N, L, d), got none; name it x")
    x = x[:, :, None] if x.ndim == 2 else x
    if x.ndim != 3 or x.dtype.kind not in "biuf" or not x.size:
        raise DataError(f"expected numbers x (N, L, d), got {x.shape} {x.dtype}; reshape or convert x")
    if lengths is not None:
        lengths = true_lengths(lengths, n=len(x), longest=x.shape[1])
        x = blank_padding(x, lengths)
    if not np.all(np.isfinite(x)):
        raise DataError("expected finite numbers in x, got NaN or infinity; repair or drop them")
    labels = [str(v) for v in y] if y is not None and y.ndim == 1 and len(y) == len(x) else None
    return Sequences(x, lengths, labels)


def _read_csv(path: Path, model: IntegerModel) -> Sequences:
    """As `qs5 train custom` reads it, the columns by the names that the model was trained with; labels may miss."""
    from qs5.tasks.errors import DataError
    from qs5.tasks.long_csv import Columns, read_csv

    columns = Columns(features=model.description.channels, optional=True)
    try:
        data = read_csv(path, columns=columns, delimiter=",")
    except DataError as error:
        raise UserError(f"{path}: {error}") from error
    labels = None if data.labels is None else [str(v) for v in data.labels]
    ragged = bool(np.any(data.lengths < data.x.shape[1]))
    return Sequences(data.x, data.lengths if ragged else None, labels)
