"""Reader of user data in a NumPy `.npz` file.

Arrays in the file (T steps of all sequences joined; N, L, d, d_out as in `sequences`):

    x        (N, L, d), or (N, L) for one channel, padded; or (T, d) or (T,), joined, with `offsets`
    y        (N,) integer or string labels; or targets of every step, shaped like x
             ((N, L, d_out) or (N, L); joined: (T, d_out) or (T,))
    lengths  (N,) true lengths of a padded x; optional
    offsets  (N + 1,) sequence k is x[offsets[k] : offsets[k + 1]]; only with a joined x
    split    (N,) "train", "validation" or "test"; optional

or the same once a split, as x_train, y_train, lengths_train, ..., x_validation, ..., x_test, ...

Nothing is unpickled: a file from a stranger is safe to read, and object arrays are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from qs5.tasks.errors import DataError
from qs5.tasks.sequences import Sequences, as_float, blank_padding, check_finite, join, pad, storable
from qs5.tasks.task import SPLITS

Arrays = dict[str, np.ndarray]
NAMES = ("x", "y", "lengths", "offsets", "split")


def read_npz(path: Path) -> Sequences:
    """The sequences of the file at `path`. DataError when its content is not as this module describes."""
    arrays = read_arrays(path)
    _check_names(arrays)
    if "x" in arrays:
        return _sequences(arrays)
    present = [split for split in SPLITS if f"x_{split}" in arrays]
    if not present:
        raise DataError(
            "expected an array x, or x_train and x_test, got "
            f"{', '.join(sorted(arrays)) or 'an empty file'}; name the arrays like this"
        )
    return join({split: _sequences(_of_split(arrays, split)) for split in present})


def _check_names(arrays: Arrays) -> None:
    """Refuse unknown names: a misspelt `lengths` would be ignored, and the padding taken for data."""
    known = {f"{name}{suffix}" for name in NAMES for suffix in ("", *(f"_{split}" for split in SPLITS))}
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise DataError(
            f"expected arrays {', '.join(NAMES)} (or each with _train, _validation, _test), got also "
            f"{', '.join(unknown)}; rename or remove"
        )


def read_arrays(path: Path, *, only: Collection[str] | None = None) -> Arrays:
    """Every array of an .npz file by name, or those in `only` that it has.

    Raises DataError (without the path) when the file is damaged, or holds objects in place of one of these arrays.
    """
    try:
        with path.open("rb") as stream:  # np.load(path) would leave a damaged file open
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise DataError(
                    "expected a .npz archive, got one array (.npy); use np.savez(path, x=..., y=...)"
                )
            return {name: _read(file, name) for name in file.files if only is None or name in only}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"expected a complete .npz file, got a damaged one or another format ({error}); "
            "write it with np.savez"
        ) from error


def _read(file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        array = file[name]
        if not isinstance(array, np.ndarray):  # np.load returns the bytes of other members of the archive
            raise DataError(
                f"expected arrays only, got another kind of file {name}; write the archive with np.savez"
            )
        return array
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"expected a plain array {name}, got an object array; "
            "for sequences of different length give padded x with lengths, or joined x with offsets"
        ) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"expected a readable array {name}, got damaged data ({error}); write it again"
        ) from error


def _of_split(arrays: Arrays, split: str) -> Arrays:
    suffix = f"_{split}"
    return {name.removesuffix(suffix): array for name, array in arrays.items() if name.endswith(suffix)}


def _sequences(arrays: Arrays) -> Sequences:
    for name in ("x", "y"):
        if name not in arrays:
            raise DataError(
                f"expected an array {name} (for every split), got {', '.join(sorted(arrays))}; add it"
            )
    if arrays["x"].size == 0:
        raise DataError(
            f"expected at least one sequence, got x of shape {arrays['x'].shape}; the data is empty"
        )
    if "offsets" in arrays:
        arrays = _padded(arrays)
    x = _with_channels(storable(arrays["x"], what="x"), what="x")
    lengths = true_lengths(arrays.get("lengths"), n=x.shape[0], longest=x.shape[1])
    x = blank_padding(x, lengths)
    check_finite(x, what="x")
    labels, targets = _labels_or_targets(arrays["y"], x=x, lengths=lengths)
    return Sequences(x=x, lengths=lengths, labels=labels, targets=targets, split=_split(arrays, n=len(x)))


def _with_channels(array: np.ndarray, *, what: str) -> np.ndarray:
    """(N, L) to (N, L, 1); (N, L, d) as it is."""
    if array.ndim not in (2, 3):
        raise DataError(f"expected {what} of shape (N, L) or (N, L, d), got {array.shape}; reshape it")
    return array if array.ndim == 3 else array[:, :, None]


def _padded(arrays: Arrays) -> Arrays:
    """Replace joined x, joined y and offsets by padded x, padded y and lengths."""
    x, y, offsets = arrays["x"], arrays["y"], arrays["offsets"]
    if "lengths" in arrays:
        raise DataError(
            "expected lengths (with a padded x) or offsets (with a joined x), got both; remove one"
        )
    if x.ndim not in (1, 2):
        raise DataError(
            f"expected joined x of shape (T,) or (T, d) beside offsets, got {x.shape}; reshape it"
        )
    _check_offsets(offsets, steps=len(x))
    padded = {**arrays, "x": _pad_steps(x, offsets), "lengths": np.diff(offsets)}
    # One value a step is a target; one value a sequence is a label. Where both counts agree it is a label.
    if y.shape[:1] == x.shape[:1] and y.shape != (len(offsets) - 1,):
        padded["y"] = _pad_steps(y, offsets)
    return padded


def _pad_steps(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    if flat.ndim > 2:
        raise DataError(f"expected joined steps of shape (T,) or (T, d), got {flat.shape}; reshape them")
    return pad(flat.reshape(len(flat), -1), offsets)


def _check_offsets(offsets: np.ndarray, *, steps: int) -> None:
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        raise DataError(
            f"expected offsets of shape (N + 1,) and an integer type, got {offsets.shape} {offsets.dtype}; "
            "give the start of every sequence, then the number of steps"
        )
    if offsets[0] != 0 or offsets[-1] != steps or (offsets[1:] <= offsets[:-1]).any():
        raise DataError(
            f"expected offsets that rise from 0 to {steps} (the steps in x) without repeats, got "
            f"{offsets[0]} to {offsets[-1]}; correct them, and drop empty sequences"
        )


def true_lengths(lengths: np.ndarray | None, *, n: int, longest: int) -> np.ndarray:
    """The lengths (N,) int32 of `n` sequences padded to `longest` steps; all of them where `lengths` is None.

    Raises DataError where they are no whole numbers in 1..longest, one a sequence.
    """
    if lengths is None:
        return np.full(n, longest, np.int32)
    if lengths.shape != (n,) or lengths.dtype.kind not in "iu":
        raise DataError(
            f"expected lengths of shape ({n},) and an integer type, got {lengths.shape} {lengths.dtype}; "
            "give one length a sequence"
        )
    if lengths.min() < 1 or lengths.max() > longest:
        raise DataError(
            f"expected lengths between 1 and {longest} (the steps in x), got {lengths.min()} to "
            f"{lengths.max()}; correct them, and drop empty sequences"
        )
    return lengths.astype(np.int32)


def _labels_or_targets(
    y: np.ndarray, *, x: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Exactly one of labels (N,) and targets (N, L, d_out)."""
    if y.shape == x.shape[:1]:
        return _labels(y), None
    if y.shape[:2] != x.shape[:2] or y.ndim not in (2, 3):
        raise DataError(
            f"expected y of shape {x.shape[:1]} (labels) or {x.shape[:2]} or {(*x.shape[:2], 'd_out')} "
            f"(targets of every step) for x of shape {x.shape}, got {y.shape}; "
            "give one label a sequence or one target a step"
        )
    targets = blank_padding(_with_channels(as_float(y, what="y"), what="y"), lengths)
    check_finite(targets, what="y")
    return None, targets


def _labels(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "S":
        return _text(y, what="y")
    if y.dtype.kind not in "biuU":
        raise DataError(
            f"expected integer or string labels in y, got type {y.dtype}; "
            "convert them (for regression give one target a step, y of shape (N, L))"
        )
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def _split(arrays: Arrays, *, n: int) -> np.ndarray | None:
    split = arrays.get("split")
    if split is None:
        return None
    if split.shape != (n,) or split.dtype.kind not in "US":
        raise DataError(
            f"expected split of shape ({n},) with strings, got {split.shape} {split.dtype}; "
            f"give one of {', '.join(SPLITS)} a sequence"
        )
    return _text(split, what="split") if split.dtype.kind == "S" else split


def _text(array: np.ndarray, *, what: str) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"expected text in UTF-8 in {what}, got {error}; store it as str") from error
