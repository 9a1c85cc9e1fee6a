"""Writes words.npz, recordings of words as frames of raw samples for `qs5 train`; words-test.npz has the test's alone.

    python make_keyword_npz.py FOLDER [--frame 32] [--seconds 0.8] [--copies 3] [--seed 0] [--out words.npz]

Reads FOLDER/<word>/*.wav: PCM, 16 bits, one channel, one rate for all. A step is FRAME consecutive samples. Of every
word's files, in the order of their names, each tenth is for the test and the one after it for the validation; where a
speaker or a session has several files, give them names that make you content with this. Every training recording is
joined by COPIES changed copies of it (speed, beginning, loudness, noise; see `qs5.tasks.fsdd.changed`).
"""

import argparse
import io
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np

from qs5.files import write_beside
from qs5.tasks.fsdd import changed, framed

TENTH = 10
SPLIT_OF = {0: "test", 1: "validation"}  # by a file's number modulo TENTH


def samples_of(path: Path) -> tuple[np.ndarray, int]:
    """The samples (n,) int16 of a WAV file, and its rate in Hz."""
    with wave.open(str(path)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            sys.exit(
                f"{path}: expected one channel of 16 bits, got {file.getnchannels()} of {8 * file.getsampwidth()}; "
                "convert it, for example with: sox in.wav -c 1 -b 16 out.wav"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16), file.getframerate()


def splits_of(folder: Path) -> tuple[dict[str, list[tuple[np.ndarray, str]]], int]:
    """(samples, word) of each recording by split, and the rate of all of them."""
    found: dict[str, list[tuple[np.ndarray, str]]] = {"train": [], "validation": [], "test": []}
    rates = {}
    for word in sorted(path for path in folder.iterdir() if path.is_dir()):
        for number, path in enumerate(sorted(word.glob("*.wav"))):
            samples, rates[path] = samples_of(path)
            found[SPLIT_OF.get(number % TENTH, "train")].append((samples, word.name))
    if len(set(rates.values())) != 1 or not all(found.values()):
        sys.exit(
            f"{folder}: expected a folder a word with at least three .wav files of one rate in each, got "
            f"{len(rates)} files and rates of {sorted(set(rates.values()))} Hz; add or convert some"
        )
    return found, next(iter(rates.values()))


def arrays_of(
    recordings: list[tuple[np.ndarray, str]], *, frame: int, length: int, copies: int, seed: int
) -> dict[str, np.ndarray]:
    """x (N, L, frame), lengths (N,) and y (N,) of recordings and their copies."""
    originals = [samples for samples, _ in recordings]
    more = [
        changed(samples, np.random.RandomState([seed, copy, k]))
        for copy in range(copies)
        for k, samples in enumerate(originals)
    ]
    x, lengths = framed([*originals, *more], frame=frame, length=length)
    return {"x": x, "lengths": lengths, "y": np.array([word for _, word in recordings] * (1 + copies))}


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Whole, or not at all."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_beside(path, content.getvalue())


def main() -> None:
    """Parse, read, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frame", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("words.npz"))
    args = parser.parse_args()
    splits, rate = splits_of(args.folder)
    arrays = {}
    for name, recordings in splits.items():
        made = arrays_of(
            recordings,
            frame=args.frame,
            length=round(args.seconds * rate),
            copies=args.copies if name == "train" else 0,
            seed=args.seed,
        )
        arrays |= {f"{key}_{name}": array for key, array in made.items()}
        print(f"{name}: {len(recordings)} recordings, {len(made['x'])} with copies")
    out = args.out if args.out.suffix == ".npz" else args.out.with_name(f"{args.out.name}.npz")
    write_npz(out, arrays)
    tested = {key: arrays[f"{key}_test"] for key in ("x", "lengths", "y")}
    write_npz(out.with_stem(f"{out.stem}-test"), tested)
    print(f"{out}: steps of {args.frame} samples, {1000 * args.frame / rate:g} ms at {rate} Hz")


if __name__ == "__main__":
    main()
