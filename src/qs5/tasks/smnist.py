"""`smnist`: MNIST read pixel by pixel, 784 steps of one channel (sequential MNIST).

The 10,000 test images and 512 training images are part of the package; the 60,000 training images are looked
for on disk, else downloaded. Every file is checked against the digest of the original release, so a `smnist`
task has the same `identity` on every machine.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from qs5.tasks import idx
from qs5.tasks.download import cache_dir, fetch
from qs5.tasks.errors import DataError
from qs5.tasks.places import directories, find, read
from qs5.tasks.splits import two_way
from qs5.tasks.task import Encoding, Split, Task

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SPLIT_SEED = 42
VALIDATION_FRACTION = 0.1
PARTS = ("full", "embedded")
SUBDIRECTORIES = ("", "mnist", "MNIST/raw")  # as given, ours, torchvision's


@dataclass(frozen=True, kw_only=True)
class IdxFile:
    """One file of the release: its name, number of axes, MD5 of the .gz, SHA-256 of the plain content."""

    name: str
    axes: int
    md5: str
    sha256: str


IMAGES = IdxFile(
    name="train-images-idx3-ubyte.gz",
    axes=3,
    md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
    sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
LABELS = IdxFile(
    name="train-labels-idx1-ubyte.gz",
    axes=1,
    md5="d53e105ee54ea40749a09fcbcd1e9432",
    sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)


def load_smnist(
    *, data_dir: str | None = None, parts: str = "full", base_url: str = MIRROR, download: bool = True
) -> Task:
    """The task `smnist`: x (N, 784, 1) uint8, encoded to [0, 1] by 1/255, ten classes.

    data_dir: where to look first for the two training files (gzip or plain); then `$QS5_DATA`, the cache,
        `base_url`.
    parts: "full" (54,000 train, 6,000 validation, 10,000 test), or "embedded", which needs no files: the same
        test split, and the 512 calibration images as both train and validation. For judging a trained model.
    download: whether a missing file may be fetched.
    Raises DataError when the training files cannot be had or are not MNIST's.
    """
    if parts not in PARTS:
        raise DataError(f"smnist: expected parts to be one of {', '.join(PARTS)}, got {parts!r}; choose one")
    if parts == "embedded":
        train = validation = embedded("calibration")
        return _task(train=train, validation=validation)
    images, labels = (
        _read_original(file, data_dir=data_dir, base_url=base_url, download=download)
        for file in (IMAGES, LABELS)
    )
    data = _sequences(images, labels)
    kept, held_out = two_way(len(data), seed=SPLIT_SEED, fraction=VALIDATION_FRACTION)
    return _task(train=data.take(kept), validation=data.take(held_out))


def embedded(prefix: str) -> Split:
    """A split inside the package: "t10k" (10,000 test images) or "calibration" (512 of the train split)."""
    images, labels = (
        idx.parse(idx.decompress(_package_bytes(name), name=name), name=name, axes=axes)
        for name, axes in ((f"{prefix}-images-idx3-ubyte.gz", 3), (f"{prefix}-labels-idx1-ubyte.gz", 1))
    )
    return _sequences(images, labels)


def _package_bytes(name: str) -> bytes:
    return resources.files("qs5.tasks").joinpath("data", "mnist", name).read_bytes()


def _task(*, train: Split, validation: Split) -> Task:
    return Task(
        name="smnist",
        train=train,
        validation=validation,
        test=embedded("t10k"),
        encoding=Encoding(scale=(1 / 255,), offset=(0.0,)),
        classes=tuple("0123456789"),
        units=None,
        objective="classification",
        metric="accuracy",
    )


def _sequences(images: np.ndarray, labels: np.ndarray) -> Split:
    """(N, 28, 28) images, row by row, to (N, 784, 1)."""
    return Split(x=images.reshape(len(images), -1, 1), y=labels.astype(np.int32), lengths=None)


def _read_original(file: IdxFile, *, data_dir: str | None, base_url: str, download: bool) -> np.ndarray:
    path = find([file.name, file.name.removesuffix(".gz")], _directories(data_dir))
    if path is None:
        path = _fetch(file, base_url=base_url, download=download)
    content = idx.decompress(read(path, task="smnist"), name=str(path))
    array = idx.parse(content, name=str(path), axes=file.axes)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{path}: expected MNIST's own data (SHA-256 {file.sha256} uncompressed), got {found}; "
            "use the original files, or load other data as the task 'custom'"
        )
    return array


def _directories(data_dir: str | None) -> list[Path]:
    """Where the training files are looked for, in order."""
    return directories(data_dir, task="smnist", below=SUBDIRECTORIES)


def _fetch(file: IdxFile, *, base_url: str, download: bool) -> Path:
    try:
        if not download:
            raise DataError("download is switched off")
        return fetch(base_url.rstrip("/") + "/" + file.name, cache_dir() / "mnist" / file.name, md5=file.md5)
    except DataError as error:
        raise DataError(
            f"smnist: expected {IMAGES.name} and {LABELS.name} in data_dir, $QS5_DATA (or mnist/ or "
            f"MNIST/raw/ below either) or {cache_dir() / 'mnist'}, got no {file.name} ({error}); "
            "put both files there, "
            'or use parts="embedded" to evaluate without training'
        ) from error
