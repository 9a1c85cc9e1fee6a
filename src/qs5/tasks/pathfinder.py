"""`pathfinder` and `pathx`: are two marked points joined by a dashed path? Images read pixel by pixel.

Found as the folders `pathfinder32` and `pathfinder128` of the Long Range Arena's release: for each level a folder
`metadata` of text files (a line an image: folder, file, number, label, ...) and PNG images below `imgs`. For
`pathfinder` also `pathfinder_qs5.npz`, which `qs5 data make pathfinder` writes: images of our own making after the
task's public description, of a task called `pathfinder-qs5`, not comparable with published numbers.

Source: D. Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent units", 2018;
Y. Tay et al., "Long Range Arena", 2021; level, normalization and split as lindermanlab/S5 `dataloaders/lra.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qs5.tasks import places, tokens
from qs5.tasks.errors import DataError
from qs5.tasks.npz import read_arrays
from qs5.tasks.splits import two_way
from qs5.tasks.task import Encoding, Split, Task

LRA = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
MADE = "pathfinder_qs5.npz"
LEVEL = "curv_contour_length_14"
BELOW = ("", "pathfinder", "lra_release", "lra_release/lra_release")
CLASSES = ("apart", "joined")
SPLIT_SEED, PART = 42, 0.1  # a tenth for validation, a tenth for test


def load_pathfinder(
    *, data_dir: str | None = None, level: str = LEVEL, selection: str = "validation"
) -> Task:
    """The task `pathfinder` (or `pathfinder-qs5`): x (N, 1024, 1) uint8, encoded to [-1, 1]; two classes.

    level: the folder of the release; the paper's has paths of 14 dashes.
    selection: "validation", or "test" as the paper selects.
    Raises DataError when the images are not there or are malformed.
    """
    return _load("pathfinder", 32, data_dir=data_dir, level=level, selection=selection)


def load_pathx(*, data_dir: str | None = None, level: str = LEVEL, selection: str = "validation") -> Task:
    """The task `pathx`: the same at 128 x 128, x (N, 16384, 1) uint8: 3.3 GB for the release's 200,000 images."""
    return _load("pathx", 128, data_dir=data_dir, level=level, selection=selection)


def _load(name: str, side: int, *, data_dir: str | None, level: str, selection: str) -> Task:
    tokens.check_selection(name, selection)
    tree = f"pathfinder{side}/{level}"
    folders = places.directories(data_dir, task=name, below=BELOW)
    found = places.find([tree, MADE] if side == 32 else [tree], folders)
    if found is None:
        remedy = f"take pathfinder{side}/ out of {LRA}"
        if side == 32:
            remedy += ", or make images in its manner: qs5 data make pathfinder --out DIR"
        raise places.missing(name, wanted=f"the folder {tree}", data_dir=data_dir, remedy=remedy)
    made = found.name == MADE
    data = _made(found, side) if made else _tree(found, side)
    rest, tested = two_way(len(data), seed=SPLIT_SEED, fraction=PART)
    kept, held_out = rest[: len(rest) - len(tested)], rest[len(rest) - len(tested) :]
    test = data.take(tested)
    validation, rule = tokens.selected(data.take(held_out), test, selection)
    return Task(
        name=f"{name}-qs5" if made else name,
        train=data.take(kept),
        validation=validation,
        test=test,
        encoding=Encoding(scale=(2 / 255,), offset=(-1.0,)),
        classes=CLASSES,
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
    )


def _sequences(images: np.ndarray, labels: np.ndarray, source: Path) -> Split:
    """(N, side, side), row by row, to (N, side^2, 1)."""
    if len(images) < 10 or len(np.unique(labels)) != 2:
        raise DataError(
            f"{source}: expected at least 10 images of both kinds, got {len(images)} with labels "
            f"{np.unique(labels).tolist()}; the data set is not complete"
        )
    return Split(x=images.reshape(len(images), -1, 1), y=labels.astype(np.int32), lengths=None)


# ---- the release's files ----


def _tree(folder: Path, side: int) -> Split:
    rows = _metadata(folder)
    images = np.empty((len(rows), side, side), np.uint8)
    for i, (path, _) in enumerate(rows):
        images[i] = _read_image(path, side)
    return _sequences(images, np.asarray([label for _, label in rows]), folder)


def _metadata(folder: Path) -> list[tuple[Path, int]]:
    """Path and label of every image, in the order of the numbered files."""
    files = sorted(
        (f for f in (folder / "metadata").glob("*.npy") if f.stem.isdigit()), key=lambda f: int(f.stem)
    )
    if not files:
        raise DataError(
            f"{folder}: expected files metadata/0.npy, ..., got none; the data set is not complete"
        )
    rows = []
    for file in files:
        text = places.read(file, task="pathfinder").decode("ascii", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if len(fields) < 4 or fields[3] not in ("0", "1"):
                raise DataError(
                    f"{file}, line {number}: expected folder, file, number and label 0 or 1, got {line[:60]!r}; "
                    "it is not the arena's metadata"
                )
            rows.append((folder / fields[0] / fields[1], int(fields[3])))
    return rows


def _read_image(path: Path, side: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError  # slow import, needed by this task only

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: expected a PNG image, got {error}; fetch the data set again") from error
    if pixels.shape != (side, side):
        raise DataError(
            f"{path}: expected {side} x {side} pixels, got {pixels.shape}; it is of another data set"
        )
    return pixels


# ---- images of our own ----


def _made(path: Path, side: int) -> Split:
    try:
        arrays = read_arrays(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    x, y = arrays.get("x"), arrays.get("y")
    good = x is not None and y is not None and x.shape[1:] == (side, side) and y.shape == x.shape[:1]
    if x is None or y is None or not good or x.dtype != np.uint8 or not set(np.unique(y).tolist()) <= {0, 1}:
        raise DataError(
            f"{path}: expected x (N, {side}, {side}) uint8 and y (N,) of 0 and 1, got "
            f"{ {name: (a.shape, a.dtype.name) for name, a in arrays.items()} }; make it again"
        )
    return _sequences(x, y, path)
