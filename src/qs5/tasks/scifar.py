"""`scifar`: CIFAR-10 in grey, read pixel by pixel, 1,024 steps of one channel (a task of the Long Range Arena).

Found as the folder `cifar-10-batches-bin` of the binary release, as its archive, or as an .npz file of greyscale
images; fetched where nothing is found. The .npz known here was made from JPEG files: its pixels are off by 4 of 255
on average, and its task is called `scifar-jpeg`, so that no result of it passes for one of CIFAR-10 itself.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; greyscale, normalization and
split as lindermanlab/S5 `dataloaders/basic.py`.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np

from qs5.tasks import places, tokens
from qs5.tasks.download import cache_dir, fetch
from qs5.tasks.errors import DataError
from qs5.tasks.npz import read_arrays
from qs5.tasks.splits import two_way
from qs5.tasks.task import Encoding, Split, Task

URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE, ARCHIVE_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
GREY = "cifar10_gray_from_jpeg.npz"
BELOW = ("", "cifar10", "cifar")
BATCHES = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
PIXELS = SIDE * SIDE
ROW = 1 + 3 * PIXELS  # label, then the red, green and blue planes
MEAN, STD = 122.6, 61.0  # of the grey training pixels, as the official code has them
SPLIT_SEED, VALIDATION_FRACTION = 42, 0.1

Images = tuple[np.ndarray, np.ndarray]
"""Grey images (N, 1024) uint8, labels (N,) int32."""


def load_scifar(
    *,
    data_dir: str | None = None,
    selection: str = "validation",
    base_url: str = URL,
    download: bool = True,
) -> Task:
    """The task `scifar` (or `scifar-jpeg`): x (N, 1024, 1) uint8, encoded to (x - 122.6) / 61; ten classes.

    selection: "validation" holds a tenth of the training images back (45,000 / 5,000 / 10,000); "test" selects on
        the test split, on the same training images (the official code holds them back as well).
    download: whether a missing archive (170 MB) may be fetched from `base_url`.
    Raises DataError when the images cannot be had or are malformed.
    """
    tokens.check_selection("scifar", selection)
    folders = places.directories(data_dir, task="scifar", below=BELOW)
    found = places.find([FOLDER, ARCHIVE, GREY], folders)
    if found is None:
        found = _fetch(data_dir, base_url=base_url, download=download)
    images = _read(found)
    data, test = (
        Split(x=x[:, :, None], y=y, lengths=None) for x, y in (images[name] for name in ("train", "test"))
    )
    kept, held_out = two_way(len(data), seed=SPLIT_SEED, fraction=VALIDATION_FRACTION)
    validation, rule = tokens.selected(data.take(held_out), test, selection)
    return Task(
        name="scifar-jpeg" if found.name == GREY else "scifar",
        train=data.take(kept),
        validation=validation,
        test=test,
        encoding=Encoding(scale=(1 / STD,), offset=(-MEAN / STD,)),
        classes=CLASSES,
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
    )


def grey(rgb: np.ndarray) -> np.ndarray:
    """Luma of ITU-R 601, (N, 3, P) uint8 to (N, P) uint8: (19595 R + 38470 G + 7471 B + 2^15) / 2^16, rounded down.

    Source: what Pillow's conversion to "L" computes, by which the official code makes its greyscale images.
    """
    weights = np.array([19595, 38470, 7471], np.uint32)
    total = np.einsum("ncp,c->np", rgb.astype(np.uint32), weights) + np.uint32(1 << 15)
    return (total >> 16).astype(np.uint8)


def parse_batch(content: bytes, *, name: str) -> Images:
    """Images of one binary batch: rows of a label byte and 3,072 bytes. Raises DataError for anything else."""
    if not content or len(content) % ROW:
        raise DataError(
            f"{name}: expected rows of {ROW} bytes (CIFAR-10's binary version), got {len(content)} bytes; "
            "the file is truncated or another one"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, ROW)
    labels = rows[:, 0].astype(np.int32)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{name}: expected labels from 0 to 9, got {labels.max()}; it is not CIFAR-10")
    return grey(rows[:, 1:].reshape(-1, 3, PIXELS)), labels


# ---- where the images come from ----


def _read(found: Path) -> dict[str, Images]:
    if found.name == GREY:
        return _read_npz(found)
    contents = _batches(found) if found.is_dir() else _members(found)
    return {
        split: _join([parse_batch(contents[n], name=f"{found}: {n}") for n in files])
        for split, files in BATCHES.items()
    }


def _batches(folder: Path) -> dict[str, bytes]:
    """The content of the folder's six files. Raises DataError that names all that are not there."""
    names = [name for files in BATCHES.values() for name in files]
    if missing := [name for name in names if not (folder / name).exists()]:
        raise DataError(
            f"scifar: expected {', '.join(names)} in {folder}, got no {', no '.join(missing)}; put what is missing "
            f"there (it is in {ARCHIVE} of {URL}), or remove the folder"
        )
    return {name: places.read(folder / name, task="scifar") for name in names}


def _join(batches: list[Images]) -> Images:
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _members(archive: Path) -> dict[str, bytes]:
    """The content of the archive's six files."""
    wanted = {name for files in BATCHES.values() for name in files}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                name, file = Path(entry.name).name, tar.extractfile(entry)
                if name in wanted and file:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{archive}: expected a complete tar archive, got a damaged one ({error}); fetch it again"
        ) from error
    if missing := sorted(wanted - set(found)):
        raise DataError(
            f"{archive}: expected the files of CIFAR-10, got none of {', '.join(missing)}; fetch it again"
        )
    return found


def _read_npz(path: Path) -> dict[str, Images]:
    try:
        arrays = read_arrays(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return {split: _checked(arrays, split, path) for split in BATCHES}


def _checked(arrays: dict[str, np.ndarray], split: str, path: Path) -> Images:
    x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
    shaped = x is not None and y is not None and x.shape[1:] == (SIDE, SIDE) and y.shape == x.shape[:1]
    if x is None or y is None or not shaped or x.dtype != np.uint8 or not len(x) or y.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected x_{split} (N, {SIDE}, {SIDE}) uint8 and y_{split} (N,) integers, got "
            f"{ {name: (a.shape, a.dtype.name) for name, a in arrays.items()} }; write it again"
        )
    if y.min() < 0 or y.max() >= len(CLASSES):
        raise DataError(
            f"{path}: expected labels from 0 to 9, got {y.min()} to {y.max()}; it is not CIFAR-10"
        )
    return x.reshape(-1, PIXELS), y.astype(np.int32)


def _fetch(data_dir: str | None, *, base_url: str, download: bool) -> Path:
    try:
        if not download:
            raise DataError("download is switched off")
        return fetch(base_url.rstrip("/") + "/" + ARCHIVE, cache_dir() / "cifar10" / ARCHIVE, md5=ARCHIVE_MD5)
    except DataError as error:
        raise places.missing(
            "scifar",
            wanted=f"the folder {FOLDER}, {ARCHIVE} or {GREY}",
            data_dir=data_dir,
            remedy=f"fetching {ARCHIVE} failed ({error}); put it in one of these places",
        ) from error
