"""Writes my_sensor.csv: made-up accelerometer recordings of three gestures, to try `qs5 train custom` with.

    python make_sensor_csv.py [--sequences 300] [--seed 0] [--out my_sensor.csv]

A row a step: id, time (ms), ax, ay, az (g), label. Sequences have 40 to 80 steps of 20 ms.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from qs5.files import write_beside

GESTURES = ("circle", "shake", "tap")


def recording(gesture: str, rng: np.random.Generator) -> np.ndarray:
    """(L, 3) accelerations in g: gravity and noise, and the movement."""
    L = int(rng.integers(40, 81))
    t = np.arange(L) * 0.02
    frequency, phase, size = rng.uniform(1.5, 2.5), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0)
    a = rng.normal(0.0, 0.15, (L, 3)) + np.asarray([0.0, 0.0, 1.0])
    if gesture == "circle":
        a[:, 0] += size * np.cos(2 * np.pi * frequency * t + phase)
        a[:, 1] += size * np.sin(2 * np.pi * frequency * t + phase)
    elif gesture == "shake":
        a[:, 0] += size * np.sign(np.sin(2 * np.pi * 2 * frequency * t + phase))
    else:
        for start in rng.integers(5, L - 5, 2):
            a[start : start + 3, 2] += 3.0 * size
    return a


def main() -> None:
    """Parse, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("my_sensor.csv"))
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["id", "time", "ax", "ay", "az", "label"])
    for i in range(args.sequences):
        gesture = GESTURES[i % len(GESTURES)]
        for k, row in enumerate(recording(gesture, rng)):
            writer.writerow([i, 20 * k, *(f"{v:.4f}" for v in row), gesture])
    write_beside(args.out, content.getvalue().encode())


if __name__ == "__main__":
    main()
