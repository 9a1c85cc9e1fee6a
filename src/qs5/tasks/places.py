"""Where the files of a data set are looked for: `--data-dir`, then `$QS5_DATA`, then the cache of downloads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from qs5.tasks.download import cache_dir
from qs5.tasks.errors import DataError


def directories(data_dir: str | None, *, task: str, below: Sequence[str] = ("",)) -> list[Path]:
    """Folders to look into, in order; `below`: the same folders in each place ("" is the place itself).

    Raises DataError when `data_dir` is given and is no directory: a mistyped one must not be passed over.
    """
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(
            f"{task}: expected data_dir to be a directory, got {data_dir!r}; create it or correct it"
        )
    bases = [data_dir, os.environ.get("QS5_DATA"), str(cache_dir())]
    return [Path(base) / folder for base in bases if base for folder in below]


def find(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The first of `names` in the first folder that has any of them; None if no folder has one."""
    return next((path for folder in folders for name in names if (path := folder / name).exists()), None)


def missing(task: str, *, wanted: str, data_dir: str | None, remedy: str) -> DataError:
    """The error that says what was looked for, where, and how to get it."""
    places = [data_dir, os.environ.get("QS5_DATA")]
    looked = " and ".join(str(place) for place in [*places, cache_dir()] if place)
    return DataError(
        f"{task}: expected {wanted} below --data-dir or $QS5_DATA, got none (looked in {looked}); {remedy}"
    )


def read(path: Path, *, task: str) -> bytes:
    """The bytes of a file. Raises DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{task}: expected a readable file, got none: {path}; put it there, beside the others of the data set"
        ) from error
    except OSError as error:
        raise DataError(f"{task}: expected a readable file, got {error}; check its permissions") from error
