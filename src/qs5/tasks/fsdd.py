"""`fsdd`: spoken digits as raw audio, 8 kHz; a step is a frame of consecutive samples.

    step k of a recording a:   (a[k F], a[k F + 1], ..., a[k F + F - 1])   F = `frame` samples, zeros past the end

so that the model's encoder, a dense layer, is the front end: F taps a channel at a stride of F. There is nothing else
before it; a device hands over the samples of its converter as they are.

Six speakers, fifty takes of every digit. Takes 0 to 4 are the test split (the data set's own), takes 5 to 9 the
validation split, the rest is trained on: every speaker is in all three.

Looked for as one .npz file, `fsdd_8khz.npz`: audio (T,) int16, all recordings joined; offsets (N + 1,), where each
begins and ends; label, speaker and take (N,), integers.

Source: Z. Jackson and others, Free Spoken Digit Dataset, CC BY-SA 4.0,
github.com/Jakobovski/free-spoken-digit-dataset.
"""

from __future__ import annotations

import numpy as np

from qs5.tasks import places, tokens
from qs5.tasks.errors import DataError
from qs5.tasks.npz import read_arrays
from qs5.tasks.task import Encoding, Split, Task

FILE = "fsdd_8khz.npz"
BELOW = ("", "fsdd")
CLASSES = tuple("0123456789")
TAKES = {"test": (0, 5), "validation": (5, 10)}
"""Takes (from, below) of the splits that are not trained on."""
FULL_SCALE = 4096.0
"""Samples are divided by this: loud recordings reach 8, the median speaker about 1."""
MAX_FRAME = 256

# What a changed copy is changed by.
SPEED = (0.85, 1.15)
OCTAVES = (-1.5, 1.5)  # of the gain: 9 dB down to 9 dB up
LATER = (-160, 400)  # samples: 20 ms cut off the beginning, to 50 ms of silence before it
NOISE = (15.0, 40.0)  # dB below the recording

Recordings = list[np.ndarray]


def load_fsdd(
    *,
    data_dir: str | None = None,
    frame: int = 32,
    length: int = 6400,
    copies: int = 0,
    copies_seed: int = 0,
    selection: str = "validation",
) -> Task:
    """The task `fsdd`: x (N, ceil(length / frame), frame) int16, encoded by 1/4096; true lengths; ten classes.

    frame: samples a step, F.
    length: samples of a recording that are kept, from its beginning (8,000 are a second; 61 of 3,000 are longer).
    copies: changed copies of every training recording that are trained on beside it (`changed`).
    copies_seed: what the changes are drawn from.
    selection: "validation", or "test" to select on the test split.
    Raises DataError when the file cannot be had or is malformed, and for impossible options.
    """
    tokens.check_selection("fsdd", selection)
    _check_options(frame=frame, length=length, copies=copies, copies_seed=copies_seed)
    arrays = _read(data_dir)
    take, splits = arrays["take"], {}
    for name, (first, end) in TAKES.items():
        splits[name] = np.flatnonzero((take >= first) & (take < end))
    splits["train"] = np.setdiff1d(np.arange(len(take)), np.concatenate(list(splits.values())))
    parts = {
        name: _split(
            arrays,
            index,
            frame=frame,
            length=length,
            copies=copies if name == "train" else 0,
            seed=copies_seed,
        )
        for name, index in splits.items()
    }
    validation, rule = tokens.selected(parts["validation"], parts["test"], selection)
    return Task(
        name="fsdd",
        train=parts["train"],
        validation=validation,
        test=parts["test"],
        encoding=Encoding(scale=(1 / FULL_SCALE,) * frame, offset=(0.0,) * frame),
        classes=CLASSES,
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
    )


def framed(recordings: Recordings, *, frame: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Recordings (n,) int16 as steps: x (N, ceil(length / frame), frame) int16, and how many steps each has."""
    steps = -(-length // frame)
    x = np.zeros((len(recordings), steps * frame), np.int16)
    lengths = np.zeros(len(recordings), np.int32)
    for row, (recording, n) in enumerate(zip(recordings, map(len, recordings), strict=True)):
        x[row, : min(n, length)] = recording[:length]
        lengths[row] = -(-min(n, length) // frame)
    return x.reshape(len(recordings), steps, frame), lengths


def changed(recording: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """A recording (n,) int16 with other speed (and pitch), beginning, loudness and noise, each drawn evenly.

    The speed is 0.85 to 1.15 of what it was (linear interpolation), the beginning 20 ms earlier (but at most half of
    the recording) to 50 ms later, the gain -9 to 9 dB, and white noise of 15 to 40 dB below the recording's mean power
    is added.
    """
    n, speed = len(recording), random.uniform(*SPEED)
    at = np.arange(0, n - 1, speed)
    sound = np.interp(at, np.arange(n), recording.astype(np.float64))
    later = max(random.randint(LATER[0], LATER[1] + 1), -(len(sound) // 2))
    sound = np.concatenate([np.zeros(later), sound]) if later >= 0 else sound[-later:]
    sound *= 2.0 ** random.uniform(*OCTAVES)
    amplitude = np.sqrt(3.0 * np.mean(np.square(sound))) * 10.0 ** (-random.uniform(*NOISE) / 20.0)
    sound += amplitude * random.uniform(-1.0, 1.0, len(sound))
    return np.clip(np.rint(sound), -(2**15), 2**15 - 1).astype(np.int16)


def _split(
    arrays: dict[str, np.ndarray], index: np.ndarray, *, frame: int, length: int, copies: int, seed: int
) -> Split:
    audio, offsets = arrays["audio"], arrays["offsets"]
    originals = [audio[offsets[k] : offsets[k + 1]] for k in index]
    # Of a recording's own number, so that what is drawn for it depends on nothing else.
    changes = [
        changed(recording, np.random.RandomState([seed, copy, k]))
        for copy in range(copies)
        for k, recording in zip(index.tolist(), originals, strict=True)
    ]
    x, lengths = framed([*originals, *changes], frame=frame, length=length)
    labels = np.tile(arrays["label"][index].astype(np.int32), 1 + copies)
    return Split(x=x, y=labels, lengths=lengths)


def _check_options(*, frame: object, length: object, copies: object, copies_seed: object) -> None:
    limits = {
        "frame": (frame, 1, MAX_FRAME),
        "length": (length, 1, 2**20),
        "copies": (copies, 0, 100),
        "copies_seed": (copies_seed, 0, 2**32 - 1),
    }
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise DataError(
                f"fsdd: expected {name} to be a whole number from {low} to {high}, got {value!r}; correct the option"
            )


# ---- the file ----


def _read(data_dir: str | None) -> dict[str, np.ndarray]:
    path = places.find([FILE], places.directories(data_dir, task="fsdd", below=BELOW))
    if path is None:
        raise places.missing(
            "fsdd",
            wanted=FILE,
            data_dir=data_dir,
            remedy="join the recordings of github.com/Jakobovski/free-spoken-digit-dataset into one such file "
            "(the head of qs5/tasks/fsdd.py says its arrays)",
        )
    try:
        arrays = read_arrays(path)
        _check(arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return arrays


def _check(arrays: dict[str, np.ndarray]) -> None:
    """Raises DataError (without the path) unless the arrays are as this module's head says."""
    _check_shapes(arrays)
    audio, offsets = arrays["audio"], arrays["offsets"]
    steps = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or offsets[-1] != len(audio) or np.any(steps < 2):
        raise DataError(
            f"expected offsets that rise from 0 to {len(audio)}, at least 2 samples a recording, got {offsets[0]} to "
            f"{offsets[-1]} in steps of {steps.min()} and more; write the file again"
        )
    label, take = arrays["label"], arrays["take"]
    if label.min() < 0 or label.max() >= len(CLASSES):
        raise DataError(f"expected labels from 0 to 9, got {label.min()} to {label.max()}; correct them")
    for name, (first, end) in {**TAKES, "train": (TAKES["validation"][1], np.inf)}.items():
        if not np.any((take >= first) & (take < end)):
            raise DataError(
                f"expected takes 0 to 4 (test), 5 to 9 (validation) and higher ones (train), got none for {name}; "
                "number the recordings of every word"
            )


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    names = ("audio", "offsets", "label", "take")
    right = all(name in arrays and arrays[name].ndim == 1 for name in names)
    right = right and arrays["audio"].dtype == np.int16
    right = right and all(arrays[name].dtype.kind in "iu" for name in names[1:])
    count = len(arrays["offsets"]) - 1 if right else 0
    if not right or count < 1 or any(len(arrays[name]) != count for name in names[2:]):
        raise DataError(
            "expected audio (T,) int16, offsets (N + 1,), label and take (N,) of whole numbers, got "
            f"{found}; write it again"
        )
